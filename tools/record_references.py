"""Records what other programs compute: `python -m tools.record_references`.

llama.cpp's samplers are C++, and contrastive search, DoLa and group beam search have left transformers 5, so
strategies cannot be compared with them by a call. This makes an environment of its own for each program,
runs there on inputs that follow from numbers (`edge_tui.verify.distributions`, `toy_models`), and writes
versions, cases and results to `edge_tui/verify/recorded/`. llama-cpp-python is compiled: that takes a while.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState

from edge_tui.verify.distributions import KINDS, Float32, logits
from edge_tui.verify.toy_models import FORMULA, SHAPE, VOCAB, generate, llama

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "edge_tui" / "verify" / "recorded"
PACKAGES = {
    "llama_cpp": ("llama-cpp-python==0.3.36", "numpy==2.4.6"),
    "transformers": ("transformers==4.55.4", "torch==2.13.0", "numpy==2.4.6"),
}
_SIZES = (2, 5, 17, 64, 300, 4097)
"""Vocabularies; where logits change, and so are recorded, the last is left out."""
_STEPS = 6
"""Steps of a sampler that learns."""


def packed(array: Any) -> str:
    """Packs an array's bytes, compressed, into text."""
    return base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()


# llama.cpp.


_TARGETS = [{"tau": tau, "eta": eta} for tau, eta in ((5.0, 0.1), (2.0, 0.3), (0.5, 1.0))]
_WAYS = {"tau": 5.0, "eta": 0.1, "m": 100}
_PENALTIES = [
    {"last_n": 64, "repeat": r, "freq": f, "present": p}
    for r, f, p in ((1.3, 0.0, 0.0), (0.7, 0.0, 0.0), (1.0, 0.5, 0.3), (1.2, -0.4, 1.5))
]
_REPEATS = [
    {"multiplier": m, "base": b, "allowed_length": length, "last_n": n}
    for m, b, length, n in ((0.8, 1.75, 2, 64), (1.5, 1.2, 1, 64), (0.3, 2.5, 3, 16), (0.8, 1.75, 4, 64))
]


def _samplers(lib: Any) -> dict[str, tuple[Callable[[dict[str, Any], int], Any], list[dict[str, Any]]]]:
    """Lists samplers by name: how to make one for arguments and a vocabulary, and the arguments to try."""
    return {
        "top_k": (lambda a, _: lib.llama_sampler_init_top_k(a["k"]), [{"k": k} for k in (1, 3, 50, 1000)]),
        "top_p": (
            lambda a, _: lib.llama_sampler_init_top_p(a["p"], 1),
            [{"p": p} for p in (0.05, 0.5, 0.9, 0.999)],
        ),
        "min_p": (
            lambda a, _: lib.llama_sampler_init_min_p(a["p"], 1),
            [{"p": p} for p in (0.001, 0.05, 0.5, 1.0)],
        ),
        "typical": (
            lambda a, _: lib.llama_sampler_init_typical(a["p"], 1),
            [{"p": p} for p in (0.1, 0.5, 0.95)],
        ),
        "top_n_sigma": (
            lambda a, _: lib.llama_sampler_init_top_n_sigma(a["n"]),
            [{"n": n} for n in (0.0, 0.5, 1.0, 3.0)],
        ),
        "xtc": (  # with probability 1, so that no coin is tossed
            lambda a, seed: lib.llama_sampler_init_xtc(1.0, a["t"], 1, 1),
            [{"t": t} for t in (0.01, 0.1, 0.3, 0.6)],
        ),
        "temp_ext": (
            lambda a, _: lib.llama_sampler_init_temp_ext(a["temp"], a["delta"], a["exponent"]),
            [
                {"temp": t, "delta": d, "exponent": e}
                for t, d, e in ((1.0, 0.5, 1.0), (1.0, 0.9, 2.0), (2.0, 1.5, 0.5))
            ],
        ),
        "penalties": (
            lambda a, size: lib.llama_sampler_init_penalties(
                size, a["last_n"], a["repeat"], a["freq"], a["present"]
            ),
            _PENALTIES,
        ),
        "dry": (  # without a vocabulary there are no breakers
            lambda a, _: lib.llama_sampler_init_dry(
                None, a["multiplier"], a["base"], a["allowed_length"], a["last_n"], None, 0
            ),
            _REPEATS,
        ),
        "mirostat": (
            lambda a, size: lib.llama_sampler_init_mirostat(size, 1, a["tau"], a["eta"], a["m"]),
            [_WAYS, {**_WAYS, "tau": 2.0}],
        ),
        "mirostat_v2": (lambda a, _: lib.llama_sampler_init_mirostat_v2(1, a["tau"], a["eta"]), _TARGETS),
        "adaptive_p": (
            lambda a, _: lib.llama_sampler_init_adaptive_p(a["target"], a["decay"], 1),
            [{"target": t, "decay": d} for t, d in ((0.3, 0.9), (0.7, 0.5), (0.05, 0.99))],
        ),
    }


_LEARNERS = ("mirostat", "mirostat_v2", "adaptive_p")
_RESHAPING = ("temp_ext", "penalties", "dry", "adaptive_p")
_WITH_HISTORY = ("penalties", "dry")
_FINITE = ("typical", "mirostat", "mirostat_v2", "temp_ext")
"""Samplers that take the logarithm of a probability of 0, or count tokens of logit −∞ as candidates."""
_MILD = ("normal", "flat", "grid", "equal", "zipf")


def record_llama_cpp() -> Iterator[dict[str, Any]]:
    """Runs the samplers of llama.cpp."""
    lib = import_module("llama_cpp.llama_cpp")
    for name, (make, arguments) in _samplers(lib).items():
        number = 0
        for each in arguments:
            for size in _SIZES:
                if size > 300 and name in _RESHAPING:
                    continue
                if name == "mirostat" and size < 17:  # its formula divides by a sum over pairs of tokens
                    continue
                number += 1
                kinds = _MILD if name in _FINITE else KINDS
                case: dict[str, Any] = {
                    "sampler": name,
                    "arguments": each,
                    "size": size,
                    "kind": kinds[number % len(kinds)],
                    "seed": number,
                }
                while name in _FINITE and not np.isfinite(_inputs(case)[0]).all():
                    case["seed"] += 100
                yield case | _sample(lib, name, make(each, size), case)


def _inputs(case: dict[str, Any]) -> list[Float32]:
    """Makes the logits of each step of a case."""
    return [
        logits(RandomState(case["seed"] + 1000 * at), case["size"], case["kind"])
        for at in range(_STEPS if case["sampler"] in _LEARNERS else 1)
    ]


def _sample(lib: Any, name: str, sampler: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Applies a sampler to the logits of a case; gives what it kept, and what it chose or was told before."""
    found: dict[str, Any] = {}
    if name in _WITH_HISTORY:
        found["history"] = RandomState(case["seed"]).randint(0, min(4, case["size"]), 30).tolist()
        for token in found["history"]:
            lib.llama_sampler_accept(sampler, token)
    left, chosen = [], []
    for z in _inputs(case):
        each = [lib.llama_token_data(i, float(x), 0.0) for i, x in enumerate(z)]
        data = (lib.llama_token_data * len(z))(*each)
        array = lib.llama_token_data_array(data, len(z), -1, False)
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        after = np.full(len(z), -np.inf, dtype=np.float32)
        for place in range(array.size):
            after[array.data[place].id] = array.data[place].logit
        left.append(after)
        if name in _LEARNERS:
            chosen.append(int(array.data[array.selected].id))
            lib.llama_sampler_accept(sampler, chosen[-1])
    lib.llama_sampler_free(sampler)
    kept = np.stack(left) > -np.inf
    found["kept"] = packed(np.packbits(kept))
    before = np.stack(_inputs(case))
    if not np.array_equal(np.stack(left)[kept], before[kept]):
        found["logits"] = packed(np.stack(left)[kept])
    return found | ({"chosen": chosen} if chosen else {})


# transformers 4.


_DIVERSE = ((4, 2, 0.5, 1.0), (6, 3, 1.0, 0.0), (4, 4, 2.0, 1.0), (6, 2, 0.2, 2.0))
"""Beams, groups, diversity penalty, length penalty."""


def record_transformers() -> Iterator[dict[str, Any]]:
    """Runs the searches of transformers 4 that transformers 5 has no more."""
    ways: list[tuple[str, dict[str, Any]]] = []
    for alpha, k in ((0.6, 4), (0.3, 8), (0.9, 2)):
        ways.append(("contrastive_search", {"penalty_alpha": alpha, "top_k": k}))
    ways.extend(("dola", {"dola_layers": layers}) for layers in ("high", "low", [0, 2], [1]))
    for beams, groups, diversity, length in _DIVERSE:
        options = {"num_beams": beams, "num_beam_groups": groups}
        ways.append(("diverse_beam", {**options, "diversity_penalty": diversity, "length_penalty": length}))
    for name, options in ways:
        for seed in range(3):
            prompt = tuple(RandomState(seed).randint(0, VOCAB, 4 + seed).tolist())
            case = {"search": name, "options": options, "model": seed, "prompt": prompt, "tokens": 12}
            yield case | _search(name, case)


def _search(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Generates; gives the answers, their scores, and for DoLa the logits of every step."""
    options = dict(case["options"])
    ends = {"eos_token_id": 7} if name == "diverse_beam" else {}
    if name == "diverse_beam":
        options["num_return_sequences"] = options["num_beams"]
    options |= {"max_new_tokens": case["tokens"], "do_sample": False, **ends}
    out = generate(llama(case["model"]), case["prompt"], **options)
    answers = out.sequences[:, len(case["prompt"]) :].tolist()
    found: dict[str, Any] = {"answers": answers, **ends}
    if name == "diverse_beam":
        found["scores"] = out.sequences_scores.tolist()
    if name == "dola":
        found["logits"] = packed(np.stack([each[0].numpy() for each in out.scores]))
    return found


# Environments.


def _write(program: str) -> None:
    """Records one program in this environment."""
    record, package = {
        "llama_cpp": (record_llama_cpp, "llama-cpp-python"),
        "transformers": (record_transformers, "transformers"),
    }[program]
    versions = {package: version(package), "numpy": version("numpy")}
    head: dict[str, Any] = {"versions": versions}
    if program == "transformers":
        head |= {"torch": version("torch"), "weights": FORMULA, "shape": {**SHAPE, "vocab_size": VOCAB}}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in record())
    text = json.dumps(head)[:-1] + f', "cases": [\n{lines}\n]}}\n'
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{program}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Makes the environments and runs this file in each; with a program's name, records it here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", nargs="?", choices=PACKAGES)
    parser.add_argument("--environments", type=Path, help="a folder in which they are kept")
    args = parser.parse_args()
    if args.program:
        _write(args.program)
        return
    with tempfile.TemporaryDirectory() as fresh:
        for program, packages in PACKAGES.items():
            folder = (args.environments or Path(fresh)) / program
            python = str(folder / "bin" / "python")
            if not Path(python).exists():
                subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([python, "-m", "tools.record_references", program], check=True, cwd=ROOT, env=env)


if __name__ == "__main__":
    main()
