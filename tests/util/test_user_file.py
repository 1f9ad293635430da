"""Files of the user's are read up to a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_tui.util.user_file import read_bytes


def test_a_file_has_as_many_bytes_as_the_limit_and_not_one_more(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"x" * 10)
    assert read_bytes(file, limit=10) == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        read_bytes(file, limit=9)
