"""Copies through the terminal (OSC 52), over SSH as well, and writes files where that cannot work.

No terminal reports whether it took a text. Its own attributes, its name and tmux's options decide what the
user reads beforehand, and a file can always be written.
"""

from __future__ import annotations

import base64
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_tui.util.atomic_write import create_numbered_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMIT = 100_000
"""Bytes that every terminal which takes a clipboard takes; some cut off what is longer."""
_SUPPORTING = ("kitty", "ghostty", "foot", "alacritty", "wezterm", "contour", "rio")
"""Beginnings of TERM and TERM_PROGRAM of terminals that take a clipboard as they come."""


@dataclass(frozen=True, slots=True)
class Clipboard:
    """Describes the way to the user's clipboard.

    Attributes:
        works: "yes", "no", or "perhaps".
        advice: A sentence on the way to make it work; "" where it does.
    """

    works: Literal["yes", "no", "perhaps"]
    advice: str = ""


def support(
    env: Mapping[str, str], reported: bool | None = None, tmux: Callable[[str], str] | None = None
) -> Clipboard:
    """Judges whether a copy will reach the user's clipboard.

    Args:
        env: The environment.
        reported: Report of the terminal itself, None if nothing.
        tmux: Gives an option of the tmux server; asks it when None.
    """
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if env.get("TMUX"):
        option = tmux or _tmux_option
        if option("set-clipboard") == "on" or option("allow-passthrough") in ("on", "all"):
            return Clipboard("perhaps", "If nothing arrives, the terminal around tmux does not allow it.")
        advice = "tmux keeps it to itself: run `tmux set -g set-clipboard on`, or `… allow-passthrough on`."
        return Clipboard("no", advice)
    if term.startswith("screen"):
        return Clipboard("perhaps", "GNU screen passes on short texts only.")
    if program == "Apple_Terminal" or term.startswith(("linux", "vt")):
        name = "macOS' Terminal" if program == "Apple_Terminal" else "the console"
        return Clipboard("no", f"{name} has no clipboard that programs can write.")
    names = (program.lower(), term.removeprefix("xterm-"))
    if reported or any(name.startswith(_SUPPORTING) for name in names):
        return Clipboard("yes")
    if program == "iTerm.app":
        advice = "iTerm2 asks for it: Settings, General, Selection, allow clipboard access."
        return Clipboard("perhaps", advice)
    return Clipboard("perhaps", "If nothing arrives, this terminal does not allow it.")


def report(text: str, support: Clipboard) -> tuple[str, Literal["info", "good", "warning"]]:
    """Says whether a text that was copied will arrive, and the weight of that sentence."""
    if support.works == "no":
        return f"{support.advice} Y writes the answer to a file.", "warning"
    long = f" It is long: some terminals take {LIMIT:,} bytes at most." if len(text.encode()) > LIMIT else ""
    if support.works == "yes":
        return f"Copied {len(text):,} characters.{long}", "good"
    return f"Sent {len(text):,} characters to the terminal. {support.advice}{long} Y writes a file.", "info"


def sequence(text: str, env: Mapping[str, str]) -> str:
    """Builds the OSC 52 sequence, wrapped so that multiplexers pass it on to the terminal around them."""
    plain = f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07"
    if env.get("TMUX"):
        # Once for tmux itself, once through it: only one of them gets anywhere.
        return plain + "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if env.get("TERM", "").startswith("screen"):
        return f"\x1bP{plain}\x1b\\"
    return plain


def save(text: str, folder: Path | None = None, now: float | None = None) -> Path:
    """Writes a text to a new file of the folder that the app was started in.

    Raises:
        OSError: it cannot be written.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return create_numbered_file((folder or Path.cwd()) / f"edge-tui-{stamp}.txt", text)


def _tmux_option(name: str) -> str:
    """Reads an option of the tmux server around us; "" where it does not answer."""
    try:
        process = subprocess.run(
            ["tmux", "show", "-gvq", name], capture_output=True, text=True, timeout=0.5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return process.stdout.strip()
