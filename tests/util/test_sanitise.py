from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.util.sanitise import sanitise

HOSTILE = st.sampled_from(
    [
        "\x1b]52;c;aGk=\x07",
        "\x1b]0;title\x1b\\",
        "\x9b31m",
        "\x9d0;t\x9c",
        "\x1b[6n",
        "\u202e",
        "\u2066",
        "\u200d",
        "\ud83d",
        "\u2028",
        "\r\n",
        "\r",
        "\t",
        "\ufeff",
        "\U000e0041",
        "👩",
        "👩\u200d💻",
        "[/",
        "[@click=app.quit]",
        "क्\u200dष",
        "e\u0301",
    ]
)
TEXT = st.lists(st.text(st.characters(exclude_categories=()), max_size=8) | HOSTILE, max_size=8).map("".join)


def controls(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]


@settings(max_examples=200)
@given(TEXT)
def test_no_control_survives(text: str) -> None:
    clean = sanitise(text, keep_newlines=False)
    assert controls(clean) == []
    assert sanitise(clean, keep_newlines=False) == clean
    clean.encode()
    assert set(controls(sanitise(text))) <= {"\n"}
    assert set(controls(sanitise(text, tab="\t"))) <= {"\n", "\t"}


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.proof)])
def test_every_code_point_comes_out_harmless(step: int) -> None:
    """All of the first two planes and of the tags, and every so many of the others."""
    everything = "".join(
        map(chr, (*range(0x20000), *range(0xE0000, 0xE1000), *range(0x20000, 0x110000, step)))
    )
    clean = sanitise(everything, keep_newlines=False)
    assert controls("".join(set(clean))) == []
    bidirectional = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert not set(bidirectional) & set(clean)
    assert "ß" in clean
    assert "語" in clean
    assert "🎉" in clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x00\x07\x7f", "␀␇␡"),
        ("\x9b31m", "‹9B›31m"),
        ("a\u202eb", "ab"),
        ("\ud800", "‹D800›"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("x\ty", "x    y"),
        ("[/] [@click=app.quit]x", "[/] [@click=app.quit]x"),
        ("👩\u200d💻 🇩🇪 👍🏽 ❤\ufe0f", "👩\u200d💻 🇩🇪 👍🏽 ❤\ufe0f"),
        ("a\u200db", "ab"),
        ("\u200d💻", "💻"),
        ("👩\u200d", "👩"),
        ("x🏽", "x‹1F3FD›"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert sanitise(text) == shown


def test_one_line_places_get_one_line() -> None:
    assert sanitise("a\nb\r\nc", keep_newlines=False) == "a␤b␍␤c"
