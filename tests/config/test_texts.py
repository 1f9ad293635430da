"""Parameters that are text in config.toml, in the environment and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.config.reader import Notice
from edge_tui.config.schema import RawText
from edge_tui.config.settings import load
from edge_tui.tui.run_params import RunParams
from tests.ban import write_ban

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edge_tui.config.settings import Settings


@pytest.fixture
def folder(home: Path) -> Iterator[Path]:
    yield write_ban()
    decoders.load()


def settings(
    folder: Path,
    toml: str = "",
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[RawText, ...]] | None = None,
) -> tuple[Settings, list[Notice]]:
    (folder / "config.toml").write_text(toml)
    return load(flags or {}, env or {})


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('words = ["e", " o", ""]', ("e", " o")),
        ('words = "e"', ("e",)),
        ("words = []", ()),
        ('words = """two\nlines"""', ("two\nlines",)),
    ],
)
def test_a_file_has_texts_and_lists(folder: Path, toml: str, words: tuple[str, ...]) -> None:
    found, notices = settings(folder, f'[parameters.ban]\n{toml}\nstart = "A"\n')
    assert notices == []
    values, sources, _ = found.for_run("ban")
    assert (values["words"], values["start"]) == (words, "A")
    assert sources["words"] == "config.toml:2"


def test_a_text_in_the_common_table_is_for_the_strategies_that_have_it(folder: Path) -> None:
    found, notices = settings(folder, '[parameters]\nwords = ["e"]\n')
    assert notices == []
    assert found.values("ban") == {"words": ("e",)}
    assert found.values("top_p") == {}


NUMBER = """from edge_tui.decoders.base import Filter, Param
class Zoom(Filter):
    name, title, summary = "zoom", "zoom", "Nothing."
    params = (Param("words", 1, 0, 9, "A number."), Param("narrow", 1, 0, 2, "A number."))
    def apply(self, z, p, s, rng):
        return z
class Zoomed(Filter):
    name, title, summary = "zoomed", "zoomed", "Nothing."
    params = (Param("narrow", 1, 0, 9, "A number."),)
    def apply(self, z, p, s, rng):
        return z
"""


def test_a_name_may_be_a_text_here_and_a_number_there(folder: Path) -> None:
    (folder / "decoders" / "zoom.py").write_text(NUMBER)
    found, notices = settings(folder, "[parameters]\nwords = 3\nnarrow = 7\n")
    assert notices == []
    assert (found.values("zoom"), found.values("ban")) == ({"words": 3}, {})
    assert found.values("zoomed") == {"narrow": 7}
    for name in ("zoom", "ban"):
        assert "words" in {row.key for row in RunParams(found, decoders.find(name)).rows()}


def test_a_text_that_looks_like_a_number_is_none(folder: Path) -> None:
    (folder / "decoders" / "zoom.py").write_text(NUMBER.replace('"words"', '"start"'))
    found, notices = settings(folder, 'strategy = "ban"\n[parameters]\nstart = "3"\n')
    assert notices == []
    assert (found.values("ban"), found.values("zoom")) == ({"start": "3"}, {})


@pytest.mark.parametrize(("high", "other"), [(2, 9), (9, 2)])
def test_each_strategy_checks_a_common_value_by_its_own_range(folder: Path, high: int, other: int) -> None:
    zoom, zoomed = NUMBER.split("class Zoomed")
    text = zoom.replace("0, 2,", f"0, {high},") + "class Zoomed" + zoomed.replace("0, 9,", f"0, {other},")
    (folder / "decoders" / "zoom.py").write_text(text)
    for strategy, is_narrow in (("zoom", high == 2), ("zoomed", other == 2), ("top_p", False)):
        found, notices = settings(folder, f'strategy = "{strategy}"\n[parameters]\nnarrow = 7\n')
        assert len(notices) == is_narrow, "only the chosen strategy's refusal is worth a notice"
        assert all("narrow is 7, but must be a number from 0 to 2." in str(notice) for notice in notices)
        assert found.values("zoom") == ({} if high == 2 else {"narrow": 7})
        assert found.values("zoomed") == ({} if other == 2 else {"narrow": 7})
    found, notices = settings(folder, "[parameters]\nnarrow = 12\n")
    assert (len(notices), found.values("zoom"), found.values("zoomed")) == (1, {}, {})


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("words = 3", "words is 3, but must be a list of texts of at most 10,000 characters."),
        ('words = ["e", 3]', "words is ['e', 3], but must be a list of texts"),
        ("start = true", "start is True, but must be a text of at most 10,000 characters."),
        ('start = ["e"]', "start is ['e'], but must be a text"),
        ('weight = "e"', "weight is 'e', but must be a number from 0 to 2."),
        ('weight = ["1"]', "weight is ['1'], but must be a number from 0 to 2."),
        ('words = ["e3"]', "words has 'e3', but must have no digit."),
        ('wordz = "e"', 'unknown parameter; did you mean "words"?'),
        (f'start = "{"x" * 10_001}"', "with 10,001 characters, but must be a text"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_leaves_the_default(
    folder: Path, toml: str, sentence: str
) -> None:
    found, notices = settings(folder, f"[parameters.ban]\n{toml}\n")
    (notice,) = notices
    assert sentence in str(notice)
    assert notice.line == 2
    assert found.values("ban") == {}


@pytest.mark.parametrize(
    ("raw", "words"), [("e", ("e",)), ('["e", "o"]', ("e", "o")), (" e", (" e",)), ("", ())]
)
def test_a_variable_wins_over_the_file(folder: Path, raw: str, words: tuple[str, ...]) -> None:
    env = {"EDGE_TUI_PARAMETERS__BAN__WORDS": raw, "EDGE_TUI_PARAMETERS__BAN__WEIGHT": ""}
    found, notices = settings(folder, '[parameters.ban]\nwords = ["z"]\n', env)
    assert notices == []
    assert found.values("ban") == {"words": words}
    assert found.for_run("ban")[1]["words"] == "EDGE_TUI_PARAMETERS__BAN__WORDS"


def test_flags_win_over_both_and_add_up(folder: Path) -> None:
    flags = {"parameters.words": (RawText("e"), RawText(" o")), "parameters.start": (RawText("["),)}
    found, notices = settings(
        folder, '[parameters]\nwords = ["z"]\n', {"EDGE_TUI_PARAMETERS__WORDS": "y"}, flags
    )
    assert notices == []
    assert found.values("ban") == {"words": ("e", " o"), "start": "["}


def test_two_keys_of_the_command_line_are_compared_in_words(folder: Path) -> None:
    flags = {"parameters.words": (RawText("e"),), "parameters.ban.words": (RawText("o"),)}
    found, _ = settings(folder, 'strategy = "ban"\n', flags=flags)
    assert [str(notice) for notice in found.flag_conflicts()] == [
        "words is ['o'], as --set ban.words=['o'] says; --set words=['e'] does not count."
    ]
