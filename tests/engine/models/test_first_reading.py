"""Zeros pass through the first layer of every family in the shapes of a prompt, once for a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.models import first_reading
from tests.engine.models.references import FAMILY_CASES, checkpoint, flat

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("case", [*list(FAMILY_CASES)[::6], "gemma4_text"])
def test_zeros_pass_through_the_first_layer(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = flat(checkpoint(tmp_path / "m", case))
    assert model.weights is not None
    attended: list[torch.Size] = []
    attend = first_reading.attend
    monkeypatch.setattr(
        first_reading, "attend", lambda q, *given: attended.append(q.shape) or attend(q, *given)
    )
    first_reading.read_zeros(model.weights.layers[0], model.config, "cpu", torch.float32)
    assert attended == [(1, 32, model.config.heads, model.config.head_dim)]


def test_one_load_alone_begins_a_thread_and_what_fails_there_is_silent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read: list[Any] = []

    def fail(*given: Any) -> None:
        read.append(given)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(first_reading, "read_zeros", fail)
    given: Any = (lambda: "layer"), "config"
    assert first_reading.begin(*given, "cuda:0", torch.bfloat16) is None
    first_reading.expect()
    assert first_reading.begin(*given, "cpu", torch.bfloat16) is None
    thread = first_reading.begin(*given, "cuda:0", torch.bfloat16)
    assert thread is not None
    thread.join()
    assert first_reading.begin(*given, "cuda:0", torch.bfloat16) is None
    assert read == [("layer", "config", "cuda:0", torch.bfloat16)]
    assert capfd.readouterr().err == ""
