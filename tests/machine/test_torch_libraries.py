"""Torch's libraries are loaded in torch's own order, where nothing else can come into their way."""

from __future__ import annotations

import ctypes
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_tui.machine import torch_libraries

ORDER = [
    ("nvidia/cu13/lib/libcublasLt.so.13", 0),
    ("nvidia/cu13/lib/libnvJitLink.so.13", 0),
    ("torch/lib/libtorch_global_deps.so", ctypes.RTLD_GLOBAL),
    ("torch/lib/libtorch_cuda.so", 0),
]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Lists what is loaded of a folder of packages, and how; what it does not hold cannot be."""
    files = [file for file, _ in ORDER]
    for file in (*files, "nvidia/cublas/lib/libcublasLt.so.12", "other/libcudart.so.12", "driver/libcuda.so"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    calls: list[tuple[str, int]] = []

    def load(file: Path, mode: int = 0) -> bool:
        if file.exists():
            calls.append((str(file.relative_to(tmp_path)), mode))
        return file.exists()

    spec = ModuleSpec("torch", None, origin=str(tmp_path / "torch/__init__.py"))
    monkeypatch.setattr(torch_libraries, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch_libraries, "torch_cuda_version", lambda: "13.0")
    monkeypatch.setattr(torch_libraries, "open_library", load)
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path / 'driver'}")
    return calls


def test_libraries_are_loaded_in_the_order_of_an_import(loaded: list[tuple[str, int]]) -> None:
    torch_libraries.load_libraries()
    assert loaded == ORDER


@pytest.mark.skipif(sys.platform != "linux", reason="the only system of NVIDIA's with such a loader")
def test_a_library_is_opened_or_not() -> None:
    folder = Path(str(find_spec("torch").origin)).parent / "lib"  # type: ignore[union-attr]
    assert torch_libraries.open_library(folder / "libtorch_global_deps.so", ctypes.RTLD_GLOBAL)
    assert not torch_libraries.open_library(folder / "libtorch_of_nobody.so")


def test_another_cuda_on_the_search_path_is_left_to_torch(
    loaded: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'driver'}:{tmp_path / 'other'}")
    torch_libraries.load_libraries()
    assert loaded == []


def test_a_torch_without_cuda_is_left_alone(
    loaded: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_libraries, "torch_cuda_version", str)
    torch_libraries.load_libraries()
    assert loaded == []


def test_a_library_that_cannot_be_loaded_is_left_to_torch(
    loaded: list[tuple[str, int]], tmp_path: Path
) -> None:
    (tmp_path / ORDER[2][0]).unlink()
    torch_libraries.load_libraries()
    assert loaded == ORDER[:2]


def test_no_thread_begins_without_a_driver_or_once_torch_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: F401

    monkeypatch.setattr(torch_libraries, "load_libraries", pytest.fail)
    monkeypatch.setattr(torch_libraries, "DRIVER", tmp_path)
    assert torch_libraries.begin_libraries("auto") is None
    monkeypatch.delitem(sys.modules, "torch")
    assert torch_libraries.begin_libraries("cpu") is None
    monkeypatch.setattr(torch_libraries, "DRIVER", tmp_path / "none")
    assert torch_libraries.begin_libraries("auto") is None


def test_an_exit_waits_for_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(torch_libraries, "DRIVER", tmp_path)
    monkeypatch.setattr(torch_libraries, "load_libraries", lambda: begun.append("libraries"))
    thread = torch_libraries.begin_libraries("auto")
    assert thread is not None
    assert not thread.daemon
    thread.join()
    assert begun == ["libraries"]
