"""Samples of the machine. NVML is hardware, so a stand-in module plays it, one failure at a time."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from edge_tui.machine import devices, telemetry
from edge_tui.machine.nvml import Gpu, GpuSample, gpu_processes, visible_devices
from edge_tui.machine.telemetry import Sample, Telemetry, gpus_of

UUIDS = ["GPU-aaaa1111-0000", "GPU-bbbb2222-0000", "GPU-cccc3333-0000"]
SLICES = {1: ["MIG-dddd4444-0000", "MIG-eeee5555-0000"]}


class NVMLError(Exception):
    """As pynvml's own."""


class FakeNvml(ModuleType):
    """Three GPUs; `broken` names calls that fail, `alive` says whether the driver answers at all."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    nvmlMemory_v2 = 2  # noqa: N815 - NVML's name

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.broken: set[str] = set()
        self.alive = True
        self.started = 0
        self.stopped = 0

    def _call(self, name: str) -> None:
        if name in self.broken or not self.alive:
            raise NVMLError(name)

    def nvmlInit(self) -> None:
        self._call("init")
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.stopped += 1
        self._call("shutdown")

    def nvmlDeviceGetCount(self) -> int:
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._call("handle")
        if index >= len(UUIDS):
            raise NVMLError("no such device")
        return UUIDS[index]

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        if UUIDS.index(handle) not in SLICES:
            raise NVMLError("not supported")
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        slices = SLICES[UUIDS.index(handle)]
        if index >= len(slices):
            raise NVMLError("not found")
        return slices[index]

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        self._call("name")
        return f"name of {handle}".encode()

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int = 1) -> Any:
        self._call("memory" if version == 1 else "memory_v2")
        used = 3 if version == 2 else 4
        return SimpleNamespace(used=used, free=6, total=10)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._call("utilisation")
        return SimpleNamespace(gpu=87, memory=20)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        self._call("power")
        return 215_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        self._call("limit")
        return 700_000

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        self._call("temperature")
        return 61

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        self._call("processes")
        held = {11: 2_000, 12: None, 13: 30_000, os.getpid(): 5_000}
        return [SimpleNamespace(pid=pid, usedGpuMemory=count) for pid, count in held.items()]

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:
        if pid == 12:
            raise NVMLError("no permission")
        return b"/usr/bin/python3.11 -m vllm"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_what_other_processes_hold(nvml: FakeNvml) -> None:
    found = [(each.pid, each.name, each.bytes) for each in gpu_processes("cuda:0")]
    assert found == [(13, "python3.11", 30_000), (11, "python3.11", 2_000), (12, "", None)]
    nvml.broken = {"processes"}
    assert gpu_processes("cuda:0") == []
    assert gpu_processes("cuda:9") == []


def name_of(device: str) -> str | None:
    gpu = Gpu(device)
    try:
        return (gpu.sample().name or "").removeprefix("name of ")
    finally:
        gpu.close()


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_every_field_is_read(nvml: FakeNvml) -> None:
    assert Gpu().sample() == GpuSample(f"name of {UUIDS[0]}", 3, 6, 10, 87.0, 215.5, 700.0, 61.0)


@pytest.mark.parametrize(
    ("broken", "fields"),
    [
        ({"name"}, {"name"}),
        ({"memory", "memory_v2"}, {"used", "free", "total"}),
        ({"utilisation"}, {"utilisation"}),
        ({"power"}, {"power_watts"}),
        ({"limit"}, {"power_limit"}),
        ({"temperature"}, {"temperature"}),
    ],
)
def test_what_is_not_supported_is_none_and_the_rest_stays(
    nvml: FakeNvml, broken: set[str], fields: set[str]
) -> None:
    nvml.broken = broken
    sample = Gpu().sample()
    missing = {name for name in GpuSample.__slots__ if getattr(sample, name) is None}
    assert missing == fields


def test_older_drivers_know_only_the_first_memory_structure(nvml: FakeNvml) -> None:
    nvml.broken = {"memory_v2"}
    assert Gpu().sample().used == 4


@pytest.mark.parametrize(
    ("value", "device", "expected"),
    [
        (None, "cuda:1", UUIDS[1]),
        ("2,0", "cuda:0", UUIDS[2]),
        ("2,0", "cuda:1", UUIDS[0]),
        ("GPU-bbbb", "cuda:0", UUIDS[1]),
        ("MIG-eeee5555-0000", "cuda:0", "MIG-eeee5555-0000"),
        ("2", "GPU-aaaa1111-0000", UUIDS[0]),
    ],
)
def test_cuda_numbers_find_the_right_device(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, value: str | None, device: str, expected: str
) -> None:
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert name_of(device) == expected


def test_once_torch_has_begun_its_uuid_decides(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA may number devices by speed, which NVML knows nothing of; the driver is faked here."""
    properties = [SimpleNamespace(uuid=UUIDS[i].removeprefix("GPU-")) for i in (2, 0)]
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 2, get_device_properties=properties.__getitem__
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert [name_of(device) for device in ("cuda:0", "cuda:1")] == [UUIDS[2], UUIDS[0]]
    assert Gpu("cuda:1").uuid() == UUIDS[0]


@pytest.mark.parametrize(
    ("value", "device"), [("", "cuda:0"), ("-1", "cuda:0"), ("0", "cuda:1"), ("9", "cuda:0")]
)
def test_hidden_devices_are_not_there(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, value: str, device: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(OSError, match=device):
        Gpu(device)
    assert nvml.stopped == nvml.started


def test_visible_stops_at_the_first_entry_that_is_no_device() -> None:
    assert visible_devices({}) is None
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "1, GPU-a ,-1,0"}) == ["1", "GPU-a"]


def test_no_driver_leaves_cpu_and_memory(nvml: FakeNvml) -> None:
    nvml.broken = {"init"}
    sample = first_sample()
    assert sample.gpu is None
    assert 0 < sample.process_rss < sample.ram_total == psutil.virtual_memory().total
    assert 0 < sample.ram_used < sample.ram_total
    assert 0 <= sample.cpu_percent <= 100


def test_no_binding_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert first_sample().gpu is None


@pytest.mark.parametrize("broken", [None, "init"])
def test_nvml_that_is_kept_open_begins_and_ends_once(
    broken: str | None, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "torch_cuda_version", lambda: "13.0")
    nvml.broken = {broken} if broken else set()
    with devices.nvml_kept_open():
        assert (nvml.started, nvml.stopped) == ((0, 0) if broken else (1, 0))
    assert nvml.started == nvml.stopped
    with pytest.raises(FileNotFoundError), devices.nvml_kept_open():
        raise FileNotFoundError("the checkpoint's")
    assert nvml.started == nvml.stopped


def test_nvml_stays_closed_where_torch_has_no_use_for_it(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "torch_cuda_version", str)
    with devices.nvml_kept_open():
        assert nvml.started == 0


def first_sample() -> Sample:
    watcher = Telemetry(interval=0.01)
    watcher.start()
    try:
        wait_for(lambda: watcher.latest() is not None)
        sample = watcher.latest()
        assert sample is not None
        return sample
    finally:
        watcher.stop()


def test_a_driver_that_goes_away_is_none_and_is_found_again(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "RETRY_SECONDS", 0.05)
    watcher = Telemetry(interval=0.01)

    def gpu() -> GpuSample | None:
        sample = watcher.latest()
        return sample.gpu if sample else None

    watcher.start()
    try:
        wait_for(lambda: gpu() is not None and gpu() != GpuSample())
        nvml.alive = False
        wait_for(lambda: gpu() == GpuSample())
        nvml.alive = True
        wait_for(lambda: gpu() != GpuSample())
        assert nvml.started == 2
    finally:
        watcher.stop()
    wait_for(lambda: nvml.stopped == 2)


def test_another_gpu_can_be_watched(nvml: FakeNvml) -> None:
    watcher = Telemetry(interval=0.01)
    watcher.start()
    try:
        watcher.watch("cuda:2")
        wait_for(lambda: watcher.latest() and watcher.latest().gpu.name == f"name of {UUIDS[2]}")  # type: ignore[union-attr]
    finally:
        watcher.stop()


def test_several_gpus_can_be_watched(nvml: FakeNvml) -> None:
    watcher = Telemetry(interval=0.01)
    watcher.start()

    def names() -> list[str | None]:
        sample = watcher.latest()
        if sample is None or sample.gpu is None:
            return []
        return [gpu.name for gpu in (sample.gpu, *sample.others)]

    try:
        watcher.watch("cuda:2", "cuda:0", "cuda:9")
        wait_for(lambda: names() == [f"name of {UUIDS[2]}", f"name of {UUIDS[0]}", None])
        watcher.watch("cuda:0")
        wait_for(lambda: names() == [f"name of {UUIDS[0]}"])
    finally:
        watcher.stop()
    wait_for(lambda: nvml.stopped == nvml.started)


def test_gpus_of_models_are_listed_once() -> None:
    models = [SimpleNamespace(device=name) for name in ("cuda:1", "cpu", "cuda:0", "cuda:1")]
    assert gpus_of(models) == ("cuda:1", "cuda:0")


def test_a_driver_that_hangs_blocks_nobody(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, answer = threading.Event(), threading.Event()
    monkeypatch.setattr(nvml, "nvmlInit", lambda: (entered.set(), answer.wait(60)))
    watcher = Telemetry(interval=0.01)
    watcher.start()
    assert entered.wait(60)
    assert watcher.latest() is None
    watcher.watch("cuda:1")
    watcher.stop()
    assert not answer.is_set(), "the driver has not answered yet"
    answer.set()
