"""What terminals answer: taken out of the input whole, in pieces and among keys, and acted upon."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events

from edge_tui.tui.clipboard import save, sequence, support
from edge_tui.tui.input_parser import InputParser
from edge_tui.tui.terminal import (
    QUERIES,
    BackgroundReply,
    ClipboardReply,
    WidthReply,
    guess_dark,
    ignores_unknown_queries,
    wants_ascii,
)
from tests.tui.rendered import until
from tests.tui.test_workbench import ended


def heard(*chunks: str) -> list[Any]:
    parser = InputParser()
    found: list[Any] = []
    for chunk in chunks:
        for each in parser.feed(chunk):
            match each:
                case events.Key():
                    found.append(each.character or each.key)
                case BackgroundReply():
                    found.append("dark" if each.dark else "light")
                case ClipboardReply():
                    found.append(each.supported)
                case WidthReply():
                    found.append("wide" if each.wide else "narrow")
                case _:
                    found.append(type(each).__name__)
    return found


ANSWERS = {
    "\x1b]11;rgb:1414/1616/1c1c\x1b\\": "dark",
    "\x1b]11;rgb:ff/ff/f0\x07": "light",
    "\x1b]11;rgba:fafa/fbfb/f8f8/ffff\x1b\\": "light",
    "\x1b[?62;52;c": True,
    "\x1b[?6c": False,
    "\x1b[2;2R": "narrow",
    "\x1b[2;3R": "wide",
    "\x1b[?997;1n": "dark",
    "\x1b[?997;2n": "light",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_each_answer(answer: str) -> None:
    assert heard(answer) == [ANSWERS[answer]]
    assert heard(f"a{answer}b") == ["a", ANSWERS[answer], "b"]


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(["a", "Q", "é", "\x1b[A", "\x1b[1;2R", "\x1b[200~x\x1b[201~", *ANSWERS]), max_size=8
    ),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_however_it_is_cut_no_answer_becomes_a_key(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    at = sorted({cut for cut in cuts if 0 < cut < len(text)})
    chunks = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    assert heard(*chunks) == heard(text)
    assert [each for each in heard(*chunks) if each in ("dark", "light", "wide", "narrow")] == [
        ANSWERS[part] for part in parts if isinstance(ANSWERS.get(part), str)
    ]


def test_what_is_known_beforehand() -> None:
    assert guess_dark({})
    assert guess_dark({"COLORFGBG": "15;0"})
    assert not guess_dark({"COLORFGBG": "0;15"})
    assert not guess_dark({"COLORFGBG": "0;default;7"})
    assert wants_ascii({"TERM": "linux"})
    assert wants_ascii({"TERM": "vt220"})
    assert not wants_ascii({"TERM": "xterm-256color", "LANG": "C"})
    assert ignores_unknown_queries({"TERM": "xterm-256color"})
    assert not ignores_unknown_queries({"TERM": "linux"})
    assert not ignores_unknown_queries({})


# The clipboard.


def options(**values: str) -> Any:
    return lambda name: values.get(name.replace("-", "_"), "")


@pytest.mark.parametrize(
    ("env", "said", "works"),
    [
        ({"TERM": "xterm-kitty"}, None, "yes"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, None, "yes"),
        ({"TERM": "xterm-256color"}, True, "yes"),
        ({"TERM": "xterm-256color"}, None, "perhaps"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, None, "perhaps"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None, "no"),
        ({"TERM": "linux"}, None, "no"),
        ({"TERM": "screen"}, None, "perhaps"),
    ],
)
def test_what_can_be_expected_of_the_clipboard(env: dict[str, str], said: bool | None, works: str) -> None:
    found = support(env, said)
    assert found.works == works
    assert bool(found.advice) == (works != "yes")


def test_tmux_is_asked_and_explained() -> None:
    env = {"TMUX": "/tmp/x,1,0", "TERM": "tmux-256color"}
    refused = support(env, True, options(set_clipboard="external", allow_passthrough="off"))
    assert refused.works == "no"
    assert "set-clipboard on" in refused.advice
    assert "allow-passthrough on" in refused.advice
    assert support(env, None, options(set_clipboard="on")).works == "perhaps"
    assert support(env, None, options(allow_passthrough="all")).works == "perhaps"


def test_what_is_sent() -> None:
    assert sequence("hé", {}) == "\x1b]52;c;aMOp\x07"
    assert sequence("hé", {"TMUX": "x"}) == "\x1b]52;c;aMOp\x07\x1bPtmux;\x1b\x1b]52;c;aMOp\x07\x1b\\"
    assert sequence("hé", {"TERM": "screen-256color"}) == "\x1bP\x1b]52;c;aMOp\x07\x1b\\"


def test_saved_files_never_replace_one_another(tmp_path: Path) -> None:
    first, second = save("a", tmp_path, 0.0), save("b", tmp_path, 0.0)
    assert (first.read_text(), second.read_text()) == ("a", "b")
    assert first.stat().st_mode & 0o777 == 0o600


async def test_copying_says_what_can_be_expected(
    picture: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    monkeypatch.chdir(tmp_path)
    app = picture()
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        await pilot.pause(0.1)
        bench.pane.focus()
        await pilot.press("y")
        assert "no answer yet" in bench.view.messages.message
        bench.prompt.insert("Hello")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript is not None and ended(bench))
        sent: list[str] = []
        monkeypatch.setattr(app._driver, "write", sent.append)  # noqa: SLF001
        await pilot.press("y")
        assert sequence(bench.pane.transcript.text, {}) in sent
        assert "If nothing arrives" in bench.view.messages.message
        app.post_message(ClipboardReply(True))
        await pilot.pause()
        await pilot.press("y")
        assert bench.view.messages.message.startswith("Copied ")
        monkeypatch.setenv("TERM", "linux")
        sent.clear()
        await pilot.press("y")
        assert not any("]52;" in each for each in sent)
        assert "Y writes the answer to a file" in bench.view.messages.message
        await pilot.press("Y")
        (file,) = tmp_path.glob("edge-tui-*.txt")
        assert file.read_text() == bench.pane.transcript.text


async def test_the_theme_follows_the_terminal_unless_one_was_chosen(picture: Any) -> None:
    app = picture(theme="auto")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        assert app.theme == "dark"
        app.post_message(BackgroundReply(False))
        await pilot.pause()
        assert app.theme == "light"
        app.post_message(BackgroundReply(True))
        await pilot.pause()
        assert app.theme == "dark"
        app.settings = replace(app.settings, ui=replace(app.settings.ui, theme="high-contrast"))
        app.theme_switch.choose("high-contrast")
        app.post_message(BackgroundReply(False))
        await pilot.pause()
        assert app.theme == "high-contrast"


async def test_wide_lines_make_it_ascii(picture: Any) -> None:
    app = picture(ascii=None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        app.post_message(WidthReply(False))
        await pilot.pause()
        assert not app.ascii
        app.post_message(WidthReply(True))
        await pilot.pause()
        assert app.ascii
        assert app.workbench.has_class("-ascii")
        assert app.workbench.view.gauge.ascii_only


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_real_terminal_is_asked_and_its_answer_seen(home: Path) -> None:
    import pexpect

    env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    child = pexpect.spawn(sys.executable, ["-m", "edge_tui"], env=env, dimensions=(24, 80), timeout=20)
    try:
        child.expect_exact(QUERIES.encode())
        child.send("\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;52c\x1b[2;2R")
        # The light theme's background, painted on the whole screen.
        child.expect_exact(b"48;2;250;250;247")
        time.sleep(0.3)
        child.send("\x11")
        child.expect(pexpect.EOF)
        output = child.before.decode(errors="replace")
        assert "\x1b[?2031l" in output
        assert "rgb:ffff" not in output
    finally:
        child.close(force=True)
