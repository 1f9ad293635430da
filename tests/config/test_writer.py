from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.cli.config import template
from edge_tui.config.writer import ConfigError, change

MINE = """# My own settings.
strategy = "beam"  # it is the best

[ui]
# Easy on the eyes.
# theme = "dark"
ascii = true


[parameters.top_k]
top_k = 3   # three
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(MINE)
    return path


def test_only_what_changes_changes(file: Path) -> None:
    change(file, {"strategy": "greedy", "ui.theme": "light", "parameters.top_k.top_k": 5})
    assert file.read_text() == MINE.replace('"beam"', '"greedy"').replace(
        '# theme = "dark"', 'theme = "light"'
    ).replace("top_k = 3", "top_k = 5")


def test_a_key_goes_where_its_table_is_and_out_again(file: Path) -> None:
    change(file, {"mode": "focused", "ui.mouse": False, "models.name": "a/b", "stop": ("x", "y")})
    values = tomli.loads(file.read_text())
    assert values["mode"] == "focused"
    assert values["ui"] == {"ascii": True, "mouse": False}
    assert (values["models"], values["stop"]) == ({"name": "a/b"}, ["x", "y"])
    assert all(line in file.read_text() for line in MINE.splitlines())
    change(file, {"mode": None, "ui.mouse": None, "models.name": None, "stop": None, "none.such": None})
    assert tomli.loads(file.read_text()) == tomli.loads(MINE) | {"models": {}}


def test_the_table_of_a_chain_stands_in_quotes_and_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[parameters."top_k+top_k#2"]\n# top_k_2 = 4\n')
    change(path, {"parameters.top_k+top_k#2.top_k_2": 3, "parameters.beam:min_p.min_p": 0.1})
    values = tomli.loads(path.read_text())["parameters"]
    assert values == {"top_k+top_k#2": {"top_k_2": 3}, "beam:min_p": {"min_p": 0.1}}
    assert path.read_text().startswith('[parameters."top_k+top_k#2"]\ntop_k_2 = 3\n')


def test_a_comment_below_a_key_stays_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('mode = "custom"\n# mode = "exploratory"\n')
    change(path, {"mode": "focused"})
    assert path.read_text() == 'mode = "focused"\n# mode = "exploratory"\n'


def test_every_key_of_the_first_file_is_set_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    path.parent.mkdir()
    path.write_text(template())
    assert not any(tomli.loads(template())[table] for table in ("models", "ui", "keys"))
    change(path, {"ui.theme": "light", "parameters.temperature": 0.5, "parameters.beam.num_beams": 2})
    lines = path.read_text().splitlines()
    assert len(lines) == len(template().splitlines())
    assert sum(a != b for a, b in zip(lines, template().splitlines(), strict=True)) == 3


def test_a_missing_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "config.toml"
    change(path, {"ui.theme": "light"})
    assert path.read_text() == '[ui]\ntheme = "light"\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


def test_a_link_stays_a_link(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    change(link, {"mode": "focused"})
    assert link.is_symlink()
    assert "focused" in file.read_text()


@pytest.mark.parametrize("broken", ["strategy = \n", "[ui\n", "\xff"])
def test_a_broken_file_is_left_alone(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(broken.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.toml .*mend it first"):
        change(path, {"mode": "focused"})
    assert path.read_bytes() == broken.encode("latin-1")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a folder it may not write to")
def test_a_read_only_folder_is_a_sentence(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="nothing was changed"):
            change(file, {"mode": "focused"})
    finally:
        file.parent.chmod(0o700)
    assert file.read_text() == MINE


def test_a_write_that_fails_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="no space left on device"):
        change(file, {"mode": "focused"})
    assert file.read_text() == MINE
    assert [entry.name for entry in file.parent.iterdir()] == ["config.toml"]


_KEYS = st.sampled_from(["strategy", "mode", "ui.theme", "ui.ascii", "models.name", "parameters.top_k.top_k"])
_VALUES: Any = st.one_of(st.text(max_size=9), st.booleans(), st.integers(0, 99), st.none())


@settings(max_examples=15)
@given(st.lists(st.tuples(_KEYS, _VALUES), max_size=6))
def test_whatever_is_changed_is_what_is_read(changes: list[tuple[str, Any]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(MINE)
        expected: dict[str, Any] = {}
        for key, value in changes:
            change(path, {key: value})
            expected[key] = value
        read = tomli.loads(path.read_text())
        for key, value in expected.items():
            found: Any = read
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            assert found == value
        assert path.read_text().startswith("# My own settings.")
