"""What the manager of models does to its process."""

from __future__ import annotations

import subprocess
import sys

IMPORT = """
import gc, sys
from edge_tui.engine.models.manager import import_torch
assert "torch" not in sys.modules
import_torch()
print(gc.isenabled(), gc.get_freeze_count() > 100_000, "torch" in sys.modules)
gc.disable()
import_torch()
print(gc.isenabled())
"""


def test_torch_stays_out_of_collections_which_go_on() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True", "False"]
