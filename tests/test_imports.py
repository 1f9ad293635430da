"""Imports load nothing heavy; each is tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "bitsandbytes", "numpy.testing")


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("from edge_tui import decoders", ("torch", "numpy", "transformers", "edge_tui.engine", "textual")),
        (
            "from edge_tui.decoders import strategies; strategies()",
            ("torch", "transformers", "edge_tui.engine", "textual"),
        ),
        (
            "import edge_tui.cli.main",
            (*HEAVY, "textual", "numpy", "rich", "psutil", "pynvml", "edge_tui.decoders"),
        ),
        ("import edge_tui.config.settings as s; s.load()", (*HEAVY, "textual", "numpy", "rich")),
        ("import edge_tui.cli.run", (*HEAVY, "textual", "numpy")),
        ("import edge_tui.machine.telemetry", (*HEAVY, "textual", "numpy", "psutil", "pynvml")),
        ("import edge_tui.engine.port, edge_tui.engine.events", (*HEAVY, "textual", "numpy")),
        ("import edge_tui.engine.local", (*HEAVY, "textual")),
        ("import edge_tui.hub", (*HEAVY, "textual")),
        ("import edge_tui.tui.app", HEAVY),
    ],
)
def test_import_stays_light(statement: str, forbidden: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint(*[name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
