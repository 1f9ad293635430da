"""Every screen and every field under hostile text, on a real terminal: the bytes that reach it are read."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pexpect
import pytest

from edge_tui.config.settings import Settings, user_config
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.screens.strategies import StrategiesScreen
from edge_tui.tui.widgets.field import Field
from tests.hostile import ONE_LINE, TEXT, write_files
from tests.tui.engines import PictureEngine
from tests.tui.rendered import is_open, until

FORBIDDEN = re.compile(
    "[\x00-\x07\x08\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\x1b\\](?!1[01];)"
)
"""What nothing of ours writes: C0 but the end of a line, C1, bidirectional controls, OSC but questions."""
PASTE = f"\x1b[200~{TEXT}\x1b[201~"
PLACES = {
    "strategies": "s",
    "models": "m",
    "themes": "t",
    "presets": "d",
    "settings": ",",
    "history": "o",
    "past prompts": "\x12",
    "palette": "\x10",
    "files": "\x0f",
    "save preset": "D",
    "help": "?",
    "explain": "e ",
    "parameter": "e\r",
}


SOME = ("models", "history", "palette", "files", "parameter")
"""A list of names, one of stored texts, Textual's own, a tree of files and a field."""


def without_pointers(raw: bytes) -> str:
    """What was written, but for the shapes that Textual gives the mouse's pointer."""
    return re.sub(r"\x1b\]22;[a-z-]+\x07", "", raw.decode("utf-8", "replace"))


class Terminal:
    """The app on a terminal, and all that it has written."""

    def __init__(self, home: Path) -> None:
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
        command = ["-m", "tests.tui.hostile_app"]
        self.child = pexpect.spawn(
            sys.executable, command, env=env, dimensions=(40, 120), timeout=30, cwd=str(Path.cwd())
        )
        self.written = b""

    def read(self, seconds: float = 0.1) -> str:
        """What came until the screen has been quiet for a while."""
        begun, end = len(self.written), time.monotonic() + 10
        while time.monotonic() < end:
            try:
                self.written += self.child.read_nonblocking(65536, seconds)
            except (pexpect.TIMEOUT, pexpect.EOF):
                break
        return without_pointers(self.written[begun:])

    def press(self, keys: str) -> str:
        self.child.send(keys)
        return self.read()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("places", [SOME, pytest.param(tuple(PLACES), marks=pytest.mark.proof)])
def test_no_byte_of_a_control_sequence_reaches_the_terminal(home: Path, places: tuple[str, ...]) -> None:
    write_files(user_config().parent)
    terminal = Terminal(home)
    terminal.child.expect("ready")
    terminal.written += terminal.child.before + terminal.child.after
    try:
        terminal.read()
        terminal.press("\x1b[200~" + TEXT + "\x1b[201~")
        terminal.press("\n")
        terminal.press("hhh")
        for place in places:
            shown = terminal.press(PLACES[place])
            shown += terminal.press(PASTE + "\x1b[B" * 2 + "\x7f" * 3)
            found = list(FORBIDDEN.finditer(shown))
            assert not found, (place, [shown[max(each.start() - 30, 0) : each.end() + 30] for each in found])
            terminal.press("\x1b")
            terminal.press("\x1b")
        terminal.press("p\n")  # the run that fails
        assert terminal.child.isalive()
        terminal.press("\x11")
        terminal.read(2.0)
        said = without_pointers(terminal.written)
        assert FORBIDDEN.findall(said) == []
        assert said.count("␛]52;c;") > 10, "the text was never there"
    finally:
        terminal.child.close(force=True)


async def test_a_field_takes_in_no_control_character() -> None:
    app = EdgeApp(PictureEngine, Settings())
    async with app.run_test() as pilot:
        await pilot.pause(0.2)
        app.workbench.pane.focus()
        await pilot.press("s")
        await until(pilot, lambda: is_open(app, StrategiesScreen))
        field = app.screen.query_one(Field)
        field.insert_text_at_cursor(TEXT)
        assert field.value.startswith("␛]52;c;")
        assert field.cursor_position == len(field.value)
        field.value = ONE_LINE
        assert field.value.isprintable()
        app.copy_to_clipboard(TEXT)
        field.value = ""
        field.action_paste()
        assert field.value.isprintable()
        assert field.value
