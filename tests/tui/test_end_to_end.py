"""One sitting at a real terminal, from the first key to the shell: nothing is simulated but the person."""

from __future__ import annotations

import os
import re
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pexpect
import pyte
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

COLUMNS, ROWS = 120, 40


class Terminal:
    """What a person sees and types: a pseudo-terminal and the screen it paints."""

    def __init__(self, home: Path, *flags: str, module: str = "edge_tui") -> None:
        env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TERM": "xterm-256color"}
        env.pop("NO_COLOR", None)
        self.child = pexpect.spawn(
            sys.executable, ["-m", module, *flags], env=env, dimensions=(ROWS, COLUMNS), timeout=30
        )
        self.raw = b""
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    def read(self, seconds: float = 0.05) -> None:
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += data
        self._stream.feed(data)

    def press(self, keys: str) -> None:
        """Sends keys, and looks at the screen until it rests, or for as long as a person would."""
        self.child.send(keys)
        deadline = time.monotonic() + 0.4
        while time.monotonic() < deadline:
            before = len(self.raw)
            self.read(0.1)
            if len(self.raw) == before:
                break

    def end(self) -> int | None:
        """Reads until the process has ended, and returns its status; a signal's end has none."""
        self.until(lambda: not self.child.isalive(), "the end")
        self.read()
        return self.child.exitstatus

    def see(self, pattern: str, seconds: float = 60.0) -> Any:
        """Waits until the screen shows a pattern."""
        return self.until(lambda: re.search(pattern, self.text), pattern, seconds)

    def until(self, look: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        """Waits until `look` finds something, and returns it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read()
            if found := look():
                return found
        raise AssertionError(f"{what} did not show within {seconds} s:\n{self.text}")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*flags: str, module: str = "edge_tui") -> Terminal:
        opened.append(Terminal(tmp_path, *flags, module=module))
        return opened[-1]

    yield start
    for each in opened:
        each.child.close(force=True)


def out_tokens(terminal: Terminal) -> int:
    """Tokens written so far, as the gauge says."""
    match = re.search(r"out\s+([\d,]+)", terminal.text)
    return int(match.group(1).replace(",", "")) if match else 0


def token_under_cursor(terminal: Terminal, at: int | None = None) -> tuple[int, int, int] | None:
    """Position, id and rank of the token in the inspector; None if it is not that at position `at`."""
    seen = re.search(r"#(\d+) id (\d+).*?rank (\d+)", terminal.text, re.DOTALL)
    if seen is None or at not in (None, int(seen[1])):
        return None
    return int(seen[1]), int(seen[2]), int(seen[3])


@pytest.mark.proof
def test_a_whole_sitting(terminal: Callable[..., Terminal]) -> None:
    sitting = terminal("--strategy", "top_p", "--max-length", "1900", "--seed", "3")
    sitting.see(r"demo/expert .*ready", 40)
    sitting.press("import os")
    sitting.press("\n")
    sitting.see(r"tokens · top-p")
    sitting.see(r"decoding")
    sitting.until(lambda: out_tokens(sitting) > 5, "tokens in the gauge")

    sitting.press("2")  # the same prompt as a beam search, while the first run goes on
    sitting.see(r"tokens · beam")
    sitting.see(r"settled")
    sitting.press("\x1b")
    sitting.see(r"● ready|stopped")

    sitting.press("4")
    sitting.press("\n")
    sitting.see(r"tokens · top-p")
    sitting.until(lambda: out_tokens(sitting) > 20, "twenty tokens")
    sitting.press("k")  # the token cursor, while it streams
    sitting.press("i")
    at, token, rank = sitting.until(lambda: token_under_cursor(sitting), "the token under the cursor")
    while rank != 1:  # below another one the token itself may stand, and taking it changes nothing
        sitting.press("h")
        before = partial(token_under_cursor, sitting, at - 1)  # the screen may follow a key late
        at, token, rank = sitting.until(before, "the token before it")
    sitting.see(r"raw\s+[\d.]+ ?%")
    sitting.until(lambda: out_tokens(sitting) > at + 200, "tokens beyond the cursor")
    sitting.press("\r")  # to the alternatives
    sitting.press("j")
    sitting.press("\r")  # take the alternative below: cut there, go on
    # How many tokens there are then may pass unseen: a busy machine paints seldom, and tokens come fast.
    sitting.see(rf"#{at} id (?!{token}\b)\d+")
    sitting.until(lambda: out_tokens(sitting) > at + 1, "tokens of the run that starts again there")

    sitting.press("m")
    sitting.see(r"models")
    sitting.see(r"demo/amateur")
    sitting.press("\x1b[B")
    sitting.press("\r")
    sitting.see(r"edge-tui\s+demo/amateur", 30)

    sitting.press("\x11")
    assert sitting.end() == 0
    assert b"\x1b[?1049l" in sitting.raw[-4000:]
    assert b"\x1b[?25h" in sitting.raw[-4000:]
    assert b"Traceback" not in sitting.raw
