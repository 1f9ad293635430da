"""Reads strategy files that import `decoders.base`, as all did before the package moved into `edge_tui`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOREIGN = 'raise ImportError("another package of that name")\n'
OLD = """
from decoders.base import Filter, Param
from decoders.random import Rng
import decoders.base, edge_tui.decoders.base

assert decoders.base is edge_tui.decoders.base
assert edge_tui.decoders.base.__spec__.name == "edge_tui.decoders.base"


class Own(Filter):
    name, title, summary = "own", "own", "An old file's."
    params = (Param("share", 0.5, 0.0, 1.0, "Nothing.", neutral=0.0),)

    def apply(self, z, p, s, rng):
        return z
"""


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_old_file_works_beside_a_foreign_package_and_is_noticed_once(tmp_path: Path) -> None:
    """The author's folder is called `decoders` and lies where Python looks first."""
    folder = tmp_path / "decoders"
    folder.mkdir()
    (folder / "__init__.py").write_text(FOREIGN)
    (folder / "own.py").write_text(OLD)
    (folder / "second.py").write_text(OLD.replace('"own", "own"', '"second", "second"'))
    code = "from pathlib import Path; from edge_tui import decoders; decoders.load([Path('decoders')])\n"
    code += "print(decoders.find('own').title, decoders.find('second').title, *decoders.current().problems)\n"
    code += "print(*decoders.current().notices)"
    titles, notices = python(code, tmp_path).splitlines()
    assert titles == "own second"
    assert notices.count("write edge_tui.decoders.base") == 1, notices


def test_names_that_are_not_ours_are_left_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "decoders"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "jpeg.py").write_text("QUALITY = 90\n")
    code = "from edge_tui.decoders.registry.registry import Registry; Registry.load()\n"
    code += "import importlib.util; print(importlib.util.find_spec('decoders.jpeg_of_nobody'))\n"
    assert python(code, tmp_path) == "None"
