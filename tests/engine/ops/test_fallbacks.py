"""Where torch lacks TorchScript or FBGEMM, plain operations serve and the log says so once."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from edge_tui.engine.ops.cpu import fbgemm, torchscript


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("not in this torch")


def twice(x: Tensor) -> Tensor:
    return 2 * x


def test_what_is_not_compiled_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.jit, "script", refuse)
    monkeypatch.setattr(torch.jit, "trace", refuse)
    for _ in range(2):
        assert torchscript.script(twice) is None
        assert torchscript.own_in_cpp([torch.ones(1)]) is None
        assert torchscript.trace("a choice", twice, [torch.ones(1)], [torch.zeros(1)]) is None
    assert len(caplog.messages) == 3  # one for each of the three
    assert sum("a choice" in message for message in caplog.messages) == 1


def test_a_product_that_fails_is_told_once_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    def product(x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError("no such operator here")

    assert not fbgemm.multiplies(product)
    assert not fbgemm.multiplies(product)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_product_that_is_wrong_is_not_used() -> None:
    assert fbgemm.multiplies(lambda x, weight: x @ weight.t())
    assert not fbgemm.multiplies(lambda x, weight: x @ weight.t() + 1.0)
