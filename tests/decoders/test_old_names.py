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


def edge_tui(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_tui", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_an_old_file_works_beside_a_foreign_package_and_is_noticed_once(tmp_path: Path) -> None:
    """The author's folder is called `decoders` and lies where Python looks first."""
    folder = tmp_path / "decoders"
    folder.mkdir()
    (folder / "__init__.py").write_text(FOREIGN)
    (folder / "own.py").write_text(OLD)
    (folder / "second.py").write_text(OLD.replace('"own", "own"', '"second", "second"'))
    words = ("--decoders", "decoders", "--max-new-tokens", "2", "--seed", "1", "--set", "share=0.1")
    done = edge_tui("run", "def f(", "--strategy", "own", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.count("write edge_tui.decoders.base") == 1, done.stderr


def test_names_that_are_not_ours_are_left_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "decoders"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "jpeg.py").write_text("QUALITY = 90\n")
    code = "from edge_tui.decoders.registry.registry import Registry; Registry.load()\n"
    code += "import importlib.util; print(importlib.util.find_spec('decoders.jpeg_of_nobody'))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stdout.strip() == "None", done.stderr
