"""Measures of which architectures an NVIDIA GPU replays captured steps, tiny and random, in bfloat16.

In float32 mixtures of experts wait: torch's product of groups has a kernel in 16 bit alone.

`python -m tests.engine.models.captured_table [FILE]` writes docs/measured/captured.json; `make docs` makes a
column of the table in docs/architectures.md of it.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.engine.models.transformers_tier import load_transformers
from edge_tui.util.logs import first_line, summary
from tests.engine.models import architecture_table
from tests.engine.models.architectures import NotTiny, make_tiny
from tests.engine.models.references import flat, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE = architecture_table.FILE.with_name("captured.json")
DEVICE = "cuda:0"
PROCESSES = 8
WIDTHS = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "qk_head_dim": 16, "v_head_dim": 16}
"""Of types whose keys have a part that is rotated: kernels of 16 bit want rows of a multiple of 16 bytes."""
NOT_MEASURED = "not measured"
"""How the reason of a row begins that says nothing of the engine."""


def rows() -> Iterator[tuple[str, str]]:
    """Yields each model type that runs, and why its steps are not captured; "" where they are.

    A type that this transformers lacks, or cannot make a tiny model of, is not measured.
    """
    table = json.loads(architecture_table.FILE.read_text(encoding="utf-8"))["rows"]
    runs = [(row["kind"], row["tier"]) for row in table if row["tier"]]
    yield from zip((kind for kind, _ in runs), in_processes(why_not, *zip(*runs, strict=True)), strict=True)


def in_processes(function: Callable[..., str], *columns: Iterable[str]) -> Iterator[str]:
    """Maps rows, each in a process of its own: after a fault of the device a process can do nothing more."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, max_tasks_per_child=1) as pool:
        yield from pool.map(function, *columns)


def why_not(kind: str, tier: str) -> str:
    """Makes a checkpoint of a model type, and tells why its steps are not captured; "" where they are."""
    folder = Path(tempfile.mkdtemp(prefix="edge-tui-"))
    try:
        path = make_tiny(folder / kind, kind, **_widths(kind))
    except NotTiny as error:
        return f"{NOT_MEASURED}: {first_line(error)}"
    except Exception as error:  # its module cannot be filled or saved
        return f"{NOT_MEASURED}: {summary(error)}"
    else:
        return _measure(path, tier).replace(str(path), kind)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _widths(kind: str) -> dict[str, int]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return WIDTHS if kind in CONFIG_MAPPING and hasattr(CONFIG_MAPPING[kind](), "qk_rope_head_dim") else {}


def _measure(path: Path, tier: str) -> str:
    try:
        options: dict[str, Any] = {"device": DEVICE, "dtype": torch.bfloat16, "precision": "bfloat16"}
        caps = (flat(path, **options) if tier == "flat" else load_transformers(source(path), **options)).caps
    except Exception as error:  # whatever a modelling library raises
        return f"it does not load: {summary(error)}"
    return "" if caps.capture else caps.reason.rpartition("slower: ")[2] or "no reason is given"


def main() -> None:
    """Writes the file, anew after each row."""
    import transformers

    head = {
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(DEVICE),
        "precision": "bfloat16",
    }
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    found = {}
    for kind, why in rows():
        found[kind] = why
        print(kind, why or "captured", file=sys.stderr, flush=True)
        file.write_text(json.dumps(head | {"why_not": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
