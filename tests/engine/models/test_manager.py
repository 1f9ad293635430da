"""What the manager of models does to its process."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from edge_tui.engine.models import manager
from edge_tui.engine.models.loader import LoadError
from edge_tui.engine.models.manager import ModelManager
from edge_tui.engine.ops.triton.availability import hash_triton
from edge_tui.engine.port import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPORT = """
import gc, sys
from edge_tui.engine.models.manager import import_torch
assert "torch" not in sys.modules
print(import_torch(), gc.isenabled(), gc.get_freeze_count() > 100_000, "torch" in sys.modules)
gc.disable()
print(import_torch(), gc.isenabled())
"""


def test_torch_stays_out_of_collections_which_go_on() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "True", "False", "False"]


@pytest.mark.parametrize(("device", "opens"), [("cuda:0", True), ("auto", True), ("cpu", False)])
def test_what_a_gpu_needs_begins_before_torch_is_imported(
    device: str, opens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[object] = []

    @contextmanager
    def kept_open() -> Iterator[None]:
        order.append("open")
        try:
            yield
        finally:
            order.append("closed")

    def refuse(*_: object) -> None:
        order.append("load")
        raise LoadError("It does not fit.")

    monkeypatch.setattr(manager, "nvml_kept_open", kept_open)
    monkeypatch.setattr(manager, "begin_context", lambda *given: order.append(given))
    monkeypatch.setattr(manager, "import_torch", lambda: order.append("torch"))
    models = ModelManager(lambda event: None, refuse, {"model": ModelSpec("m", device=device)})
    with pytest.raises(LoadError):
        models.get("model", lambda: False)
    inside = [(device, hash_triton), "torch", "load"]
    assert order == (["open", *inside, "closed"] if opens else inside)
