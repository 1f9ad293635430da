"""A token's forward in single operations, where none is compiled, against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui.engine.models import flat as flat_module
from tests.engine.models.references import (
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
)

if TYPE_CHECKING:
    from pathlib import Path

LENGTH, PROMPT = 40, 30


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "case",
    ["qwen2 old, tied", "qwen3 biased", "llama3 rope", "mistral windowed", "phi3 partial", "phi3 long rope"],
)
def test_single_tokens_without_a_compiled_step(
    case: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = checkpoint(tmp_path, case), random_ids(rows, LENGTH)
    with torch.inference_mode():
        wanted = reference(path)(ids).logits
    asked = []
    monkeypatch.setattr(flat_module, "fuse", lambda *parts: asked.append(parts))
    model = flat(path)
    assert len(asked) == 1, "the model would have compiled its step"
    context = model.open(rows, LENGTH)
    model.prefill(context, ids[:, :PROMPT])
    assert deviation(one_by_one(model, context, ids[:, PROMPT:]), wanted[:, PROMPT:]) < TOLERANCE
