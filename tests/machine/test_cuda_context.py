"""The context is made for the device that is meant, before torch is there, and by nobody else."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edge_tui.machine import cuda_context
from edge_tui.machine.devices import Device


class Driver:
    """Stands for libcuda."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> int:
            numbers = [each for each in given if isinstance(each, int)]
            self.calls.append(" ".join(map(str, [name, *numbers])))
            return 100 if name == self._fails else 0

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    return driver


def see(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets this machine have devices."""
    monkeypatch.setattr(cuda_context, "devices", lambda: [Device(name, name, 9, 9) for name in names])


@pytest.mark.parametrize(
    ("device", "gpus", "index"),
    [
        ("auto", 1, 0),
        ("cuda:0", 1, 0),
        ("cuda:1", 2, 1),
        ("auto", 2, None),
        ("auto", 0, None),
        ("cuda:3", 2, None),
    ],
)
def test_the_primary_context_is_made_of_the_device_that_is_certain(
    device: str, gpus: int, index: int | None, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, *(f"cuda:{number}" for number in range(gpus)), "cpu")
    cuda_context.make_context(device, lambda: driver.calls.append("beside"))
    made = ["cuInit 0", f"cuDeviceGet {index}", "cuDevicePrimaryCtxRetain"]
    usable = index is not None or (device == "auto" and gpus)
    assert driver.calls == ["beside"] * bool(usable) + (made if index is not None else [])


def test_a_driver_that_fails_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, "cuda:0")
    broken = Driver("cuInit")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: broken)
    cuda_context.make_context("cuda:0", lambda: None)
    assert broken.calls == ["cuInit 0"]


def test_no_thread_begins_once_torch_is_there_or_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401

    assert cuda_context.begin_context("cuda:0", pytest.fail) is None
    monkeypatch.delitem(__import__("sys").modules, "torch")
    assert cuda_context.begin_context("cpu", pytest.fail) is None
