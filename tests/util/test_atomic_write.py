"""Files that are written in another's place, or beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edge_tui.util.atomic_write import replace_file


def test_a_reader_has_the_old_file_or_the_new_one_and_no_mixture(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("old")
    with file.open() as reader:
        replace_file(file, "newer")
        assert reader.read() == "old"
    assert file.read_text() == "newer"
    assert os.listdir(tmp_path) == ["config.toml"]  # noqa: PTH208


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_who_may_read_a_file_stays(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "config.toml"
    file.write_text("old")
    file.chmod(mode)
    replace_file(file, "new")
    assert file.stat().st_mode & 0o777 == mode
