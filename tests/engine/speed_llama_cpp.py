"""Measures llama.cpp beside the engine: `python -m tests.engine.speed_llama_cpp cuda --models qwen2-7b`.

Both decode the same GGUF file of true size and random blocks, greedily, 256 tokens behind 64. On a CPU they
take turns, with two threads on the same two cores. `python -m tests.engine.llama_cpp` builds it first. Kinds
are those of files: a Q4_0 has a head of Q6_K, a Q4_K_M mixes two kinds, and where columns are no multiple of
256 a wider kind takes the place of one of K, as llama.cpp has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.random_models import CONFIGS, STD
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.checkpoints.gguf.files import PACKED, add, gguf_name, random_blocks
from tests.engine.llama_cpp import bench_program

PROMPT, ROUNDS = 64, 3
_PIECE = 1 << 20
"""Weights of random blocks, which repeat: drawing them all would take longer than writing."""
_NARROW = {Type.Q4_K: Type.Q5_0, Type.Q6_K: Type.Q8_0}
"""What takes the place of a kind whose blocks of 256 do not divide the columns."""


def kind_of(file: str, name: str, head: str, columns: int, layers: int) -> Type:
    """Returns the kind of a matrix in a file of such a kind, by its name in the file and that of the head."""
    if file in ("F16", "Q8_0"):
        return Type[file]
    layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    if name == head:
        kind = Type.Q6_K
    elif file == "Q4_0":
        kind = Type.Q4_0
    else:
        kind = Type.Q6_K if more and name.split(".")[-2] in ("attn_v", "ffn_down") else Type.Q4_K
    return _NARROW[kind] if kind in _NARROW and columns % 256 else kind


def write_random_gguf(file: Path, model: str, kind: str) -> Path:
    """Writes a GGUF file of a named architecture's true size, with random weights."""
    config, tokens = CONFIGS[model]
    arch, heads, layers = config["model_type"], config["num_attention_heads"], config["num_hidden_layers"]
    out = gguf.GGUFWriter(file, arch)
    for key, value in {
        f"{arch}.block_count": layers,
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{arch}.rope.freq_base": float(config["rope_theta"]),
        **_vocabulary(tokens, config["vocab_size"]),
    }.items():
        add(out, key, value)
    shapes = _shapes(config)
    head = "output.weight" if "output.weight" in shapes else "token_embd.weight"
    kinds = {
        name: kind_of(kind, name, head, shape[-1], layers) if len(shape) > 1 else Type.F32
        for name, shape in shapes.items()
    }
    for name, shape in shapes.items():
        block, size = gguf.GGML_QUANT_SIZES[kinds[name]]
        data = (
            np.uint8 if kinds[name] in PACKED else {Type.F16: np.float16, Type.F32: np.float32}[kinds[name]]
        )
        bytes_ = (*shape[:-1], shape[-1] // block * size)
        count = int(np.prod(shape)) // block * size
        stored = bytes_ if data is np.uint8 else shape
        out.add_tensor_info(name, stored, np.dtype(data), count, raw_dtype=kinds[name])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    pieces: dict[Type, Any] = {}
    for name, shape in shapes.items():
        out.write_tensor_data(_values(name, shape, kinds[name], pieces))
    out.close()
    return file


def _values(name: str, shape: tuple[int, ...], kind: Type, pieces: dict[Type, Any]) -> np.ndarray[Any, Any]:
    """Makes a tensor's bytes: ones for norms, zeros for biases, else random blocks that repeat."""
    if kind == Type.F32:
        return np.full(shape, float(name.endswith("norm.weight")), np.float32)
    if kind not in pieces:
        rng = np.random.default_rng(0)
        normal = (rng.standard_normal(_PIECE, np.float32) * STD).astype(np.float16)
        pieces[kind] = random_blocks(kind, _PIECE // 256, 256, 0).ravel() if kind in PACKED else normal
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // block * (size if kind in PACKED else 1)
    return np.resize(pieces[kind], count)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Lists tensors by their names in a file."""
    from edge_tui.bench.random_models import _shapes as shapes

    return {gguf_name(name): shape for name, shape in shapes(config).items()}


def _vocabulary(tokens: int, rows: int) -> dict[str, Any]:
    """Returns a byte-level vocabulary of the true size, with one merge."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    strings = alphabet + [f"Ġ{number:x}" for number in range(rows - len(alphabet))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": strings,
        "tokenizer.ggml.token_type": [1] * tokens + [5] * (rows - tokens),
        "tokenizer.ggml.merges": ["Ġ 0"],
        "tokenizer.ggml.eos_token_id": tokens - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def theirs(device: str, file: Path, tokens: int, rounds: int) -> list[float]:
    """Returns the tokens a second of `llama-bench`, one a round; none where it fails, and prints why."""
    where = ["-ngl", "99"] if device == "cuda" else ["-ngl", "0", "-t", "2"]
    sizes = ["-p", "0", "-d", str(PROMPT), "-n", str(tokens), "-r", str(rounds), "-fa", "auto", "-o", "json"]
    command = [str(bench_program(device)), "-m", str(file), *sizes, *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        print(f"llama-bench failed on {file.name}: {last}", file=sys.stderr, flush=True)
        return []
    return [float(each) for each in json.loads(done.stdout)[0]["samples_ts"]]


def ours(runner: EdgeRunner, tokenizer: Any, tokens: int, number: int) -> float:
    """Returns the engine's tokens a second, the first left out."""
    ids = tuple(prompt_ids(tokenizer, PROMPT, number))
    end = runner.generate(Request("", ids=ids, strategy="greedy", max_length=tokens))
    return (runner.state.steps - 1) / end.seconds


def measure(device: str, model: str, kind: str, tokens: int, folder: Path) -> dict[str, Any]:
    """Measures both on one file and prints the medians."""
    file = write_random_gguf(folder / f"{model}-{kind}.gguf", model, kind)
    runner = EdgeRunner({"model": ModelSpec(str(file), "auto", "cuda:0" if device == "cuda" else "cpu")})
    try:
        facts = runner.load()
        ours(runner, facts.tokenizer, 16, 0)
        # Loading a file to a GPU takes longer than decoding does, so there turns are not taken.
        turns, each = (ROUNDS, 1) if device == "cpu" else (1, ROUNDS)
        own, other = [], []
        for turn in range(turns):
            own += [ours(runner, facts.tokenizer, tokens, 1 + turn + i) for i in range(each)]
            other += theirs(device, file, tokens, each)
    finally:
        runner.close()
    size = file.stat().st_size
    file.unlink()
    row = {"device": device, "model": model, "kind": kind, "bytes": size, "ours": own, "llama.cpp": other}
    cells = [_spread(own), _spread(other), f"{median(own) / median(other):.2f}×" if other else "–"]
    print(f"| {model} | {kind} | {facts.info.precision} | {' | '.join(cells)} |", flush=True)
    return row


def _spread(rates: list[float]) -> str:
    """Words the median, the slowest and the fastest."""
    return f"{median(rates):,.1f} ({min(rates):,.1f} to {max(rates):,.1f})" if rates else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("device", choices=["cuda", "cpu"])
    parser.add_argument("--models", type=lambda text: text.split(","), default=["qwen2-0.5b"])
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=["F16", "Q4_0", "Q8_0", "Q4_K_M"]
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where files are written; a temporary one if left out")
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
        os.environ["OMP_NUM_THREADS"] = "2"
    rows = []
    print("| model | file | ours computes in | ours tok/s | llama.cpp tok/s | ours over it |", flush=True)
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        for model, kind in product(asked.models, asked.kinds):
            rows.append(measure(asked.device, model, kind, asked.tokens, Path(name)))
            if out := os.environ.get("OUT"):
                (Path(out) / f"llama_cpp_{asked.device}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
