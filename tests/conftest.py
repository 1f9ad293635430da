"""Every test runs in a home of its own, without a network, on one thread."""

from __future__ import annotations

import gc
import os
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from edge_tui.engine import seeds
from tests import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Read by torch and tokenizers when they are first imported, in this process and in those that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Beside busy processes any example may take long, and no test asserts seconds.
settings.register_profile("any time", deadline=None)
settings.load_profile("any time")

# What is imported and collected stays. Looking for garbage in it takes a third of that time.
gc.disable()

_FOREIGN = ("EDGE_TUI_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_")
_TERMINAL = ("NO_COLOR", "COLORTERM", "TEXTUAL", "COLUMNS", "LINES")


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names a folder for each test; pytest would list those of all tests before for each."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes an empty home folder and points every library to it."""
    folder = next(homes)
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in _TERMINAL:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    for name, part in {"CONFIG": "config", "CACHE": "cache", "STATE": "state", "DATA": "data"}.items():
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / part))
    monkeypatch.setenv("HF_HOME", str(folder / "cache" / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(autouse=True)
def drawn_seeds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws a test's seeds from its name: one sample in two thousand ends before its fourth token."""
    numbers = Random(request.node.nodeid)
    monkeypatch.setattr(seeds, "draw", lambda: numbers.getrandbits(seeds.BITS))


def pytest_configure(config: pytest.Config) -> None:
    """Lets kernels run under Triton's interpreter where there is no GPU: Triton asks at its first import.

    The process that only hands tests to workers needs no torch.
    """
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        import torch

        if not torch.cuda.is_available():
            os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Does for what the tests import what the app does for torch: see `import_torch`."""
    yield
    interpreter.quicken()
    gc.freeze()
    gc.set_threshold(20_000)  # a screen is 60,000 objects in cycles: collections took two fifths of its test
    gc.enable()


def pytest_sessionfinish() -> None:
    """Leaves nothing to pytest's five collections at the end, which take seconds."""
    gc.freeze()
