"""Imports load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "bitsandbytes", "numpy.testing")
HELP = "import edge_tui.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: pass"
STEPS = (
    (HELP, (*HEAVY, "textual", "numpy", "rich", "psutil", "pynvml", "edge_tui.decoders")),
    ("from edge_tui import decoders", (*HEAVY, "textual", "numpy", "edge_tui.engine")),
    ("from edge_tui.decoders import strategies; strategies()", (*HEAVY, "textual", "edge_tui.engine")),
    ("import edge_tui.machine.telemetry", (*HEAVY, "textual", "numpy", "psutil", "pynvml")),
    ("import edge_tui.config.settings as s; s.load()", (*HEAVY, "textual", "numpy", "rich")),
    ("import edge_tui.engine.port, edge_tui.engine.events", (*HEAVY, "textual", "numpy")),
    ("import edge_tui.cli.run", (*HEAVY, "textual", "numpy")),
    ("import edge_tui.engine.local", (*HEAVY, "textual")),
    ("import edge_tui.hub.listing, edge_tui.hub.remote", (*HEAVY, "textual")),
    ("import edge_tui.tui.app", HEAVY),
)
"""Statements, from the lightest on, and modules that none of them up to there may load."""


def test_imports_stay_light() -> None:
    code = f"""
import contextlib, io, sys
for statement, forbidden in {STEPS!r}:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(statement)
    if loaded := [name for name in forbidden if name in sys.modules]:
        sys.exit(f"{{statement}} loads {{loaded}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
