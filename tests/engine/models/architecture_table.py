"""Measures what each causal language model of transformers can do here, on tiny random checkpoints.

`python -m tests.engine.models.architecture_table` writes docs/measured/architectures.json; `make docs` makes
the table in docs/architectures.md of it. Greedy and three beams, in float32 on a CPU, are held against
`generate()` of the same weights.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.engine.events import Failed, Loaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models.architectures import NotTiny, make_tiny
from tests.engine.random_checkpoints import TOKENS, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.watch import Watched

FILE = Path(__file__).parents[3] / "docs" / "measured" / "architectures.json"
NEW, BEAMS = 12, 3
IDS = tuple(range(20, 44, 2))


@dataclass(frozen=True, slots=True)
class Row:
    """Holds one line of the table.

    Attributes:
        kind: `model_type` of config.json.
        architecture: The class.
        tier: "flat" or "transformers"; "" where it is refused.
        greedy, beams: "equal" to `generate()`, "equal without its cache" where that is wrong,
            "differs", or a word for what stood against it.
        notices: What the model cannot do, as a user reads it; the refusal of one that is refused.
    """

    kind: str
    architecture: str
    tier: str
    greedy: str
    beams: str
    notices: tuple[str, ...]


def kinds() -> list[str]:
    """Lists the model types of transformers' table of causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def rows() -> Iterator[Row | str]:
    """Yields a line for each model type; its name alone where it cannot be made tiny."""
    for kind in kinds():
        folder = Path(tempfile.mkdtemp(prefix="edge-tui-"))
        try:
            make_tiny(folder, kind, vocab_size=TOKENS)
            save_tokenizer(folder, chat_template=True)
            yield measure(kind, folder)
        except NotTiny:
            yield kind
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def measure(kind: str, folder: Path) -> Row:
    """Decodes a checkpoint both ways."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    engine = LocalEngine({"model": ModelSpec(str(folder), "float32", "cpu")})
    try:
        greedy = watch(engine, Request("", ids=IDS, strategy="greedy", max_length=NEW))
        if greedy.all(Failed) and not greedy.all(Loaded):
            return Row(kind, architecture, "", "", "", (greedy.failed.message.replace(str(folder), kind),))
        loaded: Loaded = greedy.all(Loaded)[0]
        values = {"num_beams": BEAMS}
        beams = watch(engine, Request("", ids=IDS, strategy="beam", values=values, max_length=NEW))
    finally:
        engine.close(10)
    module, ends = _module(folder), greedy.started.end_ids if not greedy.all(Failed) else ()
    said = tuple(each.replace(str(folder), kind) for each in loaded.notices)
    return Row(
        kind,
        architecture,
        loaded.tier,
        _compared(greedy, module, ends, 1),
        _compared(beams, module, ends, BEAMS),
        said,
    )


def _module(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _compared(run: Watched, module: Any, ends: tuple[int, ...], beams: int) -> str:
    """Compares a run's tokens with those of `generate()`."""
    if run.all(Failed):
        return "one row" if "one only" in run.failed.message else "failed"
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "num_beams": beams}
    # Decoders cut out of translators would force a token at the beginning or the end.
    asked |= {"forced_bos_token_id": None, "forced_eos_token_id": None}
    asked |= {"eos_token_id": list(ends), "pad_token_id": 0}
    ours = _cut(list(run.finished.answer or ()) if beams > 1 else run.ids, ends)
    try:
        with torch.inference_mode():
            for cache, word in ((True, "equal"), (False, "equal without its cache")):
                out = module.generate(torch.tensor([IDS]), use_cache=cache, **asked)[0, len(IDS) :]
                if ours == _cut(out.tolist(), ends):
                    return word
    except Exception:
        return "generate() fails"
    return "differs"


def _cut(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    """Cuts behind the first end."""
    at = next((i for i, id in enumerate(ids) if id in ends), len(ids))
    return ids[:at]


def main() -> None:
    """Writes the file."""
    import transformers

    found, large = [], []
    for row in rows():
        if isinstance(row, Row):
            found.append(asdict(row))
        else:
            large.append(row)
        print(row, file=sys.stderr, flush=True)
    result = {"transformers": transformers.__version__, "rows": found, "not_tiny": large}
    FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
