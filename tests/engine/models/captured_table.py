"""Measures of which architectures an NVIDIA GPU replays captured steps, on tiny random checkpoints.

`python -m tests.engine.models.captured_table [FILE]` writes docs/measured/captured.json; `make docs` makes a
column of the table in docs/architectures.md of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.models.transformers_tier import load_transformers
from edge_tui.util.logs import first_line, summary
from tests.engine.models import architecture_table
from tests.engine.models.architectures import NotTiny, make_tiny
from tests.engine.models.references import flat, source

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = architecture_table.FILE.with_name("captured.json")
DEVICE = "cuda:0"
NOT_MEASURED = "not measured"
"""How the reason of a row begins that says nothing of the engine."""


def rows() -> Iterator[tuple[str, str]]:
    """Yields each model type that runs, and why its steps are not captured; "" where they are.

    A type that this transformers lacks, or cannot make a tiny model of, is not measured.
    """
    for row in json.loads(architecture_table.FILE.read_text(encoding="utf-8"))["rows"]:
        if row["tier"]:
            yield row["kind"], _why_not(row["kind"], row["tier"])


def _why_not(kind: str, tier: str) -> str:
    folder = Path(tempfile.mkdtemp(prefix="edge-tui-"))
    try:
        path = make_tiny(folder / kind, kind)
    except NotTiny as error:
        return f"{NOT_MEASURED}: {first_line(error)}"
    except Exception as error:  # its module cannot be filled or saved
        return f"{NOT_MEASURED}: {summary(error)}"
    else:
        return _measure(path, tier).replace(str(path), kind)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(path: Path, tier: str) -> str:
    try:
        if tier == "flat":
            caps = flat(path, device=DEVICE).caps
        else:
            options = {"dtype": torch.float32, "precision": "float32"}
            caps = load_transformers(source(path), device=DEVICE, **options).caps
    except Exception as error:  # whatever a modelling library raises
        return f"it does not load: {summary(error)}"
    return "" if caps.capture else caps.reason.rpartition("slower: ")[2] or "no reason is given"


def main() -> None:
    """Writes the file, anew after each row: a fault of the device may end the process."""
    import transformers

    head = {"transformers": transformers.__version__, "device": torch.cuda.get_device_name(DEVICE)}
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    found = {}
    for kind, why in rows():
        found[kind] = why
        print(kind, why or "captured", file=sys.stderr, flush=True)
        file.write_text(json.dumps(head | {"why_not": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
