"""What goes wrong is written to the state folder, for whoever reports it; tokens and keys never are.

Nothing here raises: on a read-only home the log is simply not kept.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEEP = 10
"""Crash logs that stay; older ones are removed."""
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|AUTH", re.IGNORECASE)
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9_-]{8,}|\bgh[pousr]_[A-Za-z0-9]{8,}"
    r"|(?i:(?<=bearer )\S+)|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def state_folder() -> Path:
    """Where crash logs lie; `XDG_STATE_HOME` is honoured."""
    import platformdirs

    return platformdirs.user_state_path("edge-tui", appauthor=False)


def scrub(text: str) -> str:
    """The text without what looks like a secret, or is the value of a variable that is named like one."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "‹removed›")
    return _SECRET.sub("‹removed›", text)


def crash(error: BaseException, now: float | None = None) -> Path | None:
    """Writes an error's traceback to a file of its own that only its owner can read.

    Returns:
        The file, or None where none could be written.
    """
    return detail("".join(traceback.format_exception(error)), now)


def detail(text: str, now: float | None = None) -> Path | None:
    """Writes what the screen is too small for, as `crash` does."""
    from edge_tui import __version__

    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    path = state_folder() / f"crash-{stamp}-{os.getpid()}.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(f"edge-tui {__version__}\n{scrub(text)}\n")
        for old in sorted(path.parent.glob("crash-*.log"))[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError:
        return None
    return path
