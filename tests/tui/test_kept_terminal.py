"""At a real terminal: a lost connection loses nothing, and the editor gets the terminal and gives it back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from tests.tui.test_end_to_end import Terminal, out_tokens, terminal

__all__ = ["terminal"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
NO_LESSONS = {"EDGE_TUI_UI__LESSONS": "false"}


@pytest.fixture(autouse=True)
def _no_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_LESSONS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.proof
@pytest.mark.parametrize("how", ["killed", "hung up"])
def test_what_a_lost_connection_cut_off_goes_on_at_the_next_start(
    terminal: Callable[..., Terminal], how: str
) -> None:
    flags = ("--strategy", "greedy", "--max-length", "1900")
    first = terminal(*flags)
    first.see(r"demo/expert .*ready", 40)
    first.press("import os")
    first.press("\n")
    first.until(lambda: out_tokens(first) > 30, "thirty tokens")
    seen = out_tokens(first)
    first.child.kill(signal.SIGKILL if how == "killed" else signal.SIGHUP)
    first.end()

    second = terminal(*flags)
    second.see(r"a run was interrupted", 40)
    second.see(r"demo/expert .*ready", 40)  # of which a sentence tells, in the place of the next one
    (entry,) = Store(default_path()).runs()
    assert entry.state == "interrupted"
    # The last 50 ms may be gone, at a thousand tokens a second.
    assert entry.tokens >= seen - 50
    second.press("\r")
    second.see(r"Opened with its settings: c goes on")
    second.see(r"demo/expert .*ready", 40)
    second.press("c")
    second.until(lambda: second.text.count("import") and out_tokens(second) > 5, "new tokens")
    second.press("\x1b")
    second.press("\x11")


def test_the_editor_gets_the_terminal_and_gives_it_back_even_if_it_fails(
    terminal: Callable[..., Terminal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import os, sys\n"
        "mark = sys.argv[0] + '.mark'\n"
        "if not os.path.exists(mark):\n"
        "    open(mark, 'w').close()\n"
        "    sys.exit(1)\n"
        "text = open(sys.argv[-1]).read()\n"
        "answer = input('EDITING ' + text + '> ')\n"
        "open(sys.argv[-1], 'w').write(text + answer)\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    sitting = terminal("nothing", module="tests.tui.crashing")
    sitting.see(r"ready", 40)
    sitting.press("def ")
    sitting.press("\x07")
    sitting.see(r"ended with status 1")
    sitting.press("f")
    sitting.press("\x07")
    sitting.see(r"EDITING def f>")
    sitting.press("ibonacci(n):\r")
    sitting.see(r"│ def fibonacci\(n\):")
    sitting.press("\n")
    sitting.until(lambda: out_tokens(sitting) > 3, "tokens")
    sitting.press("\x11")
    assert sitting.end() == 0
    assert default_path().exists()
