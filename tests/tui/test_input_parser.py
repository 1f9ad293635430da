"""What a terminal sends, cut anywhere: pastes are data, keys are keys, and nothing ends the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events

from edge_tui.tui.input_parser import (
    END,
    LONGEST_PASTE,
    PASTE_PAUSE,
    START,
    InputParser,
    PasteOpen,
    PasteRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.message import Message


class Typist:
    """A parser, what it has yielded, and a clock that stands still in between."""

    def __init__(self) -> None:
        self.now = 100.0
        self.heard: list[str] = []
        self._parser = InputParser(lambda: self.now)

    def send(self, *chunks: str, pause: float = 0.0) -> Typist:
        for chunk in chunks:
            self._note(self._parser.feed(chunk))
            self.wait(pause)
        return self

    def wait(self, seconds: float) -> Typist:
        self.now += seconds
        self._note(self._parser.tick())
        return self

    def _note(self, messages: Iterable[Message]) -> None:
        for each in messages:
            match each:
                case events.Key():
                    self.heard.append(each.key)
                case events.Paste():
                    if self.heard and self.heard[-1].startswith("paste "):
                        self.heard[-1] += each.text
                    else:
                        self.heard.append(f"paste {each.text}")
                case _:
                    self.heard.append(type(each).__name__)


def heard(*chunks: str, pause: float = 0.0) -> list[str]:
    return Typist().send(*chunks, pause=pause).wait(0.2).heard


HOSTILE = (
    "bye \x1b\x11",
    "\x1b\n",
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b]0;title\x07",
    "nested \x1b[200~ twice \x1b[200~",
    "\x1b[20",
    "\x1b[201",
    "\x1b",
    "nul \x00 \x9b31m \x85",
    "\x1b[<35;10;5M\x1b[I\x1b[O",
    "é € 𝄞",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_everything_between_the_brackets_is_data(text: str) -> None:
    whole = f"a{START}{text}{END}b"
    expected = ["a", *([f"paste {text}"] if text else []), "b"]
    assert heard(whole) == expected
    assert heard(*whole) == expected
    for cut in range(1, len(whole)):
        assert heard(whole[:cut], whole[cut:]) == expected


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "é",
                "\x1b[A",
                "\x1bOP",
                "\x1b[I",
                "\x1b[<0;3;4M",
                "\n",
                *(START + t + END for t in HOSTILE),
            ]
        ),
        max_size=6,
    ),
    st.lists(st.integers(1, 120), max_size=5),
)
def test_cuts_change_nothing(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    at = sorted({cut for cut in cuts if cut < len(text)})
    chunks = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    assert heard(*chunks) == heard(text)


@pytest.mark.parametrize("cut", range(1, len(START)))
@pytest.mark.parametrize("pause", [0.15, 1.5])
def test_a_paste_whose_beginning_is_torn_apart_in_time_is_a_paste(cut: int, pause: float) -> None:
    text = "bye \x1b\x11\x1b\n"
    found = heard(START[:cut], START[cut:] + text, END, pause=pause)
    assert found[-1] == f"paste {text}"
    assert set(found[:-1]) <= {"escape", "left_square_bracket"}, "only what was typed may have been an Esc"


@pytest.mark.parametrize("cut", range(1, len(END)))
def test_a_paste_whose_end_is_torn_apart_in_time_ends_there(cut: int) -> None:
    found = heard(START + "x", END[:cut], END[cut:] + "q", pause=1.5)
    assert found == ["paste x", "q"]


@pytest.mark.parametrize(
    ("packet", "keys"),
    [
        ("\x1b2", ["escape", "2"]),
        ("\x1bb", ["escape", "b"]),
        ("\x1b\x11", ["escape", "ctrl+q"]),
        ("\x1b\n", ["escape", "ctrl+j"]),
        ("\x1b\r", ["escape", "enter"]),
        ("\x1b\x7f", ["escape", "backspace"]),
        ("\x1b-", ["escape", "minus"]),
        ("\x1b\x1b", ["escape", "escape"]),
        ("\x1b\x1b[A", ["escape", "up"]),
        ("\x1b[", ["escape", "left_square_bracket"]),
        ("\x1bO", ["escape", "O"]),
        ("\x1b]", ["escape", "right_square_bracket"]),
        ("\x1bP", ["escape", "P"]),
        ("\x1bé", ["escape", "é"]),
        ("\x1b", ["escape"]),
        ("\x1b[A", ["up"]),
        ("\x1bOA", ["up"]),
        ("\x1b[1;5C", ["ctrl+right"]),
        ("\x1b[97;3u", ["alt+a"]),
        ("\x1b[3~", ["delete"]),
        ("\x1b[3$", ["shift+delete"]),
        ("\x1b[[A", ["f1"]),
    ],
)
def test_an_escape_and_a_key_are_two_keys_unless_a_terminal_sends_both(packet: str, keys: list[str]) -> None:
    assert heard(packet) == keys


def test_keys_in_turn_are_heard_once_each() -> None:
    assert heard("\x1b", "a", "\x1b", "[", "\x1b", "O", "q", pause=0.15) == [
        *("escape", "a", "escape", "left_square_bracket"),
        *("escape", "O", "q"),
    ]


def test_a_key_after_a_sequence_that_never_ended_is_a_key() -> None:
    assert heard("\x1b[<35;1", "q", pause=1.5) == ["q"]
    assert heard("\x1b[<35;1", "0;5M", pause=1.5) == ["MouseMove"]


def test_alt_and_a_key_that_the_user_has_bound_are_one_key() -> None:
    parser = InputParser(lambda: 0.0, {"alt+x", "alt+shift+r", "alt+2"}.__contains__)
    keys = [each.key for each in parser.feed("\x1bx\x1bR\x1b2\x1by") if isinstance(each, events.Key)]
    assert keys == ["alt+x", "alt+shift+r", "alt+2", "escape", "y"]


def test_what_an_input_method_composes_arrives_whole() -> None:
    text = "今日は良い天気ですね"
    parser = InputParser(lambda: 0.0)
    keys = [*parser.feed(f"\x1b[0;;{':'.join(str(ord(each)) for each in text)}u")]
    assert "".join(each.character or "" for each in keys if isinstance(each, events.Key)) == text


@pytest.mark.parametrize(
    "nonsense",
    [
        "\x1b[1114112u",
        "\x1b[99999999999u",
        "\x1b[97:65;1u",
        "\x1b[97;1:3u",
        "\x1b[55296u",
        "\x1b[97;;56320u",
        "\x1b[48;24;80;0;0t\x1b[<0;1;1M",
        "\x1b[<;;M",
        "\x1b[<0;-3;-4M",
        "\x1b[M\x00\x00\x00",
        "\x1b[" + "1;" * 30 + "z",
        "\x1b]11;nonsense\x07",
        "\x1b]52;c;" + "A" * 4000 + "\x1b\\",
        "\x1b[12\x1b[?\x1b[<35;1",
        "\x1b[999z\x1b[z",
        "\x1b[201~",
        "\ufffd\x9b\x85",
    ],
)
def test_a_sequence_without_a_sense_does_nothing_and_ends_nothing(nonsense: str) -> None:
    harmless = {"Resize", "MouseDown", "replacement_character", "shift+escape", "\x85"}
    found = heard(nonsense, "\x1b[A", "q")
    assert found[-2:] == ["up", "q"]
    assert set(found[:-2]) <= harmless


@settings(max_examples=300)
@given(
    st.lists(st.text(st.sampled_from("\x1b[]<>?;:$0129~MmIORuaAt\x00\x07\x9bé\n"), max_size=12), max_size=8)
)
def test_no_input_ends_the_input(chunks: list[str]) -> None:
    typist = Typist().send(*chunks, pause=0.15).wait(PASTE_PAUSE).wait(PASTE_PAUSE)
    typist.send("\x07", END, END, "q", pause=1.5)
    assert typist.heard[-1] == "q"


def test_a_paste_without_an_end_is_handed_on_and_a_key_leaves_it() -> None:
    typist = Typist().send(START + "one\x1b\x11").wait(PASTE_PAUSE)
    assert typist.heard == ["paste one\x1b\x11", "PasteOpen"]
    typist.send("more\x1b\n")
    typist.wait(PASTE_PAUSE)
    assert typist.heard[2:] == ["paste more\x1b\n", "PasteOpen"], (
        "what comes in one piece still belongs to it"
    )
    assert typist.send("\x11").heard[-1] == "ctrl+q"
    assert typist.send("a\x1b[B").heard[-2:] == ["a", "down"]


@pytest.mark.parametrize("key", ["\x1b", "\x1b[A", "\x1b[<35;10;5M", START + "two" + END])
def test_what_leaves_a_paste_without_an_end(key: str) -> None:
    found = Typist().send(START + "one").wait(PASTE_PAUSE).send(key).wait(0.2).send("q").heard
    assert found[:2] == ["paste one", "PasteOpen"]
    assert found[2:] in (["escape", "q"], ["up", "q"], ["MouseMove", "q"], ["paste two", "q"])


def test_a_long_paste_in_small_pieces_is_whole() -> None:
    text = "0123456789 é\x1b[31m\n" * 60_000
    whole = START + text + END
    typist = Typist().send(*(whole[at : at + 4096] for at in range(0, len(whole), 4096)))
    assert typist.heard == [f"paste {text}"]


def test_a_paste_that_is_too_long_is_refused_and_the_input_goes_on() -> None:
    piece = "x" * (LONGEST_PASTE // 4)
    typist = Typist().send(START, *[piece] * 5, END, "q")
    assert typist.heard == ["PasteRefused", "q"]


def test_messages_say_what_happened() -> None:
    parser = InputParser(lambda: 0.0)
    messages = [*parser.feed(START + "x" * (LONGEST_PASTE + 3) + END)]
    assert [each.length for each in messages if isinstance(each, PasteRefused)] == [LONGEST_PASTE + 3]
    assert not any(isinstance(each, PasteOpen) for each in messages)
