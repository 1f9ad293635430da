"""Keys and pastes at a real terminal: nothing pasted is obeyed, and no byte ends the input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from tests.tui.test_end_to_end import Terminal, terminal

__all__ = ["terminal"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
START, END = b"\x1b[200~", b"\x1b[201~"


@pytest.fixture
def sitting(terminal: Callable[..., Terminal]) -> Terminal:
    opened = terminal("nothing", module="tests.tui.crashing")
    opened.see(r"ready", 40)
    return opened


def send(sitting: Terminal, data: bytes, pause: float = 0.0) -> None:
    for at in range(0, len(data), 1 if pause else len(data)):
        sitting.child.send(data[at : at + 1] if pause else data)
        time.sleep(pause)


def quit_(sitting: Terminal) -> int | None:
    sitting.child.send("\x11")
    status = sitting.end()
    assert b"Traceback" not in sitting.raw
    assert sitting.raw.count(b"\x1b[?1049l") == 1
    return status


def test_pastes_are_data_and_keys_are_keys(sitting: Terminal) -> None:
    send(sitting, START + b"bye \x1b\x11 and \x1b\n \x1b[31mred\x1b[0m\xff \xc3\xa9\x00." + END)
    sitting.see(r"bye ␛␑ and ␛")
    sitting.see(r"␛\[31mred␛\[0m\ufffd é␀\.")
    send(sitting, b"\xff\xe9A")
    sitting.see(r"\.\ufffd\ufffdA")
    send(sitting, START + "nächste ␛".encode() + b"\x1b[3mZeile" + END, pause=0.002)
    sitting.see(r"nächste ␛␛\[3mZeile")
    sitting.press("\n")
    sitting.see(r"tokens · top-p")
    sitting.child.send("\x1b2")
    sitting.see(r"▸2 beam")
    assert "™" not in sitting.text
    assert quit_(sitting) == 0


@pytest.mark.proof
def test_a_megabyte_is_taken_whole_and_a_paste_without_an_end_can_be_left(sitting: Terminal) -> None:
    line = b"0123456789 \x1b[32m\xc3\xa9 to the end\x1b[0m 0123456789\n"
    text = START + line * (1_000_000 // len(line)) + b"last line" + END
    for at in range(0, len(text), 1000):
        sitting.child.send(text[at : at + 1000])
        if at % 50_000 == 0:
            sitting.read(0.001)
    sitting.see(r"last line", 60)
    sitting.see(r"\d{3},\d{3} characters", 30)
    send(sitting, START + b" never ends \x1b\x11")
    sitting.see(r"never ends ␛␑")
    sitting.see(r"paused for 2 s")
    assert quit_(sitting) == 0
