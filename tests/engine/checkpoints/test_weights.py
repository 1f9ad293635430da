"""Checkpoints that are incomplete or damaged, and how loading tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_tui.engine.checkpoints.weight_files import CheckpointError, WeightsError
from edge_tui.errors import Cancelled
from tests.engine.models.references import flat, random_ids
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", shards=3)


def test_sharding_changes_nothing(path: Path, tmp_path: Path) -> None:
    whole, ids = flat(make_checkpoint(tmp_path / "whole")), random_ids(1, 9)
    split = flat(path)
    assert split.info.weight_bytes == whole.info.weight_bytes
    a, b = (m.forward(m.open(1, 9), ids).logits for m in (split, whole))
    assert torch.equal(a, b)


def test_truncated_shard(path: Path) -> None:
    file = path / SECOND
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=SECOND):
        flat(path)


def test_missing_shard(path: Path) -> None:
    (path / SECOND).unlink()
    with pytest.raises(CheckpointError, match=f"1 of 3 weight files are missing, first {SECOND}"):
        flat(path)


def test_missing_tensor(path: Path) -> None:
    tensors = load_file(path / SECOND)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path / SECOND)
    with pytest.raises(WeightsError, match=f"no tensor {name}"):
        flat(path)


def test_wrong_shape(path: Path) -> None:
    tensors = load_file(path / SECOND)
    name = next(n for n in tensors if n.endswith("weight"))
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, path / SECOND)
    with pytest.raises(WeightsError, match=f"{name} has shape"):
        flat(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", f"{INDEX} of model cannot be read"),
        ("[]", f"{INDEX} of model is not a JSON object"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "first ../x.safetensors"),
        ('{"weight_map": 3}', "first every shard"),
    ],
)
def test_damaged_index(path: Path, text: str, words: str) -> None:
    (path / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        flat(path)


def test_no_weights(path: Path) -> None:
    (path / INDEX).unlink()
    for file in path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        flat(path)


def test_pickles_are_not_looked_at(path: Path) -> None:
    (path / INDEX).unlink()
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin"):
        flat(path)


def test_progress_reaches_the_end_and_cancel_stops(path: Path) -> None:
    told: list[tuple[int, int]] = []
    flat(path, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    total = told[-1][1]
    headers = 3 * 8192
    assert total - headers < told[-1][0] <= total
    assert total == sum(f.stat().st_size for f in path.glob("*.safetensors"))
    seen = len(told)
    with pytest.raises(Cancelled):
        flat(
            path,
            progress=lambda done, total: told.append((done, total)),
            cancelled=lambda: len(told) > seen + 4,
        )
    assert len(told) == seen + 5


def test_bfloat16_checkpoint_loads_wide_and_narrow(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "b", dtype=torch.bfloat16)
    wide, narrow = flat(path), flat(path, dtype=torch.bfloat16, precision="bfloat16")
    assert wide.info.weight_bytes == 2 * narrow.info.weight_bytes
    assert wide.info.kv_bytes == 2 * narrow.info.kv_bytes
    assert (wide.info.dtype, narrow.info.precision) == ("float32", "bfloat16")
    ids = random_ids(1, 12)
    a, b = (m.forward(m.open(1, 12), ids).logits.float() for m in (wide, narrow))
    assert (a - b).abs().max() < 0.05 * a.abs().max()
    config = json.loads((path / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
