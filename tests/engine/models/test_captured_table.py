"""The table of captured architectures goes on past types that cannot be measured."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import torch

from tests.engine.models import architecture_table, architectures, captured_table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_cannot_be_made_or_loaded_is_a_row_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"no_such_type": "transformers", "gpt2": "transformers", "llama": "flat", "mamba": ""}
    table, file = tmp_path / "architectures.json", tmp_path / "captured.json"
    rows = [{"kind": kind, "tier": tier} for kind, tier in kinds.items()]
    table.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    monkeypatch.setattr(architecture_table, "FILE", table)
    monkeypatch.setattr(captured_table, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a CPU")
    monkeypatch.setattr(sys, "argv", ["captured_table", str(file)])

    def make_tiny(folder: Path, kind: str, **sizes: int) -> Path:
        if kind == "gpt2":
            raise ValueError("a weight has no place\nmore lines")
        return architectures.make_tiny(folder, kind, **sizes)

    monkeypatch.setattr(captured_table, "make_tiny", make_tiny)
    monkeypatch.setattr(captured_table, "in_processes", map)
    captured_table.main()
    found = json.loads(file.read_text(encoding="utf-8"))["why_not"]
    assert found.keys() == {"no_such_type", "gpt2", "llama"}
    assert found["no_such_type"].startswith("not measured: transformers ")
    assert found["no_such_type"].endswith(" does not know no_such_type")
    assert found["gpt2"] == "not measured: ValueError: a weight has no place"
    assert found["llama"] == "no reason is given"
