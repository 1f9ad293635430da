"""Writes crashes and long errors to files of the state folder, without tokens and keys.

Nothing here raises: on a read-only home there is no log.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from pathlib import Path

from edge_tui.util.sanitise import sanitise

MAX_FILES = 10
"""Logs that stay; older ones are removed."""
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|AUTH", re.IGNORECASE)
_SECRET = re.compile(
    r"\b(?:hf|api_org|github_pat)_[A-Za-z0-9_]{8,}|\b(?:sk|xox[a-z])-[A-Za-z0-9_-]{8,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{8,}|\bAKIA[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|(?i:(?<=bearer )[^\s'\"]+)|(?i:(?<=basic )[A-Za-z0-9+/=]{8,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_ASSIGNED = re.compile(
    r"\b((?:access_|auth_|hf_|api_)?token|api_?key|access_key|secret|password)"
    r"(=['\"]?|['\"]\s*:\s*['\"])[^\s'\"<>&,;)}]{6,}",
    re.IGNORECASE,
)
"""A secret after its name; a control token such as <|endoftext|> is none."""
_secrets: set[str] = set()
MAX_CHARACTERS = 300
"""Characters of an error's message in a sentence; the log has all of it."""


def state_folder() -> Path:
    """Returns the folder of the logs; `XDG_STATE_HOME` is honoured."""
    import platformdirs

    return platformdirs.user_state_path("edge-tui", appauthor=False)


def scrub(text: str) -> str:
    """Removes what looks like a secret, or is the value of a variable that is named like one."""
    variables = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    # The longest first: one may be a part of another.
    for value in sorted({*variables, *_secrets, _hub_token()}, key=len, reverse=True):
        if len(value) >= 6:
            text = text.replace(value, "‹removed›")
    return _ASSIGNED.sub(r"\1\2‹removed›", _SECRET.sub("‹removed›", text))


def add_secret(secret: str) -> None:
    """Keeps a secret of any form, such as a key from a file, out of everything written here."""
    _secrets.add(secret)


def _hub_token() -> str:
    """Reads the token of Hugging Face's libraries from its file; "" without one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    file = os.environ.get("HF_TOKEN_PATH") or Path(os.environ.get("HF_HOME") or cache) / "token"
    try:
        return Path(file).expanduser().read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError, RuntimeError):
        return ""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message without secrets and full stop; its class without one.

    A line that ends in a colon takes the next one along.
    """
    try:
        lines = scrub(str(error)).strip().splitlines()
    except Exception:
        return "it cannot say why"
    if not lines:
        return type(error).__name__
    line = lines[0]
    if line.endswith(":") and len(lines) > 1:  # it only announces what is wrong
        line = f"{line} {lines[1].strip()}"
    return line.rstrip(".") if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]} …"


def summary(error: BaseException) -> str:
    """Returns an error's class and the first line of its message, without secrets."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def write_crash(error: BaseException) -> Path | None:
    """Writes an error's traceback to a file of its own that only its owner can read.

    Returns:
        The file, or None where none could be written.
    """
    return write_detail("".join(traceback.format_exception(error)))


def write_detail(text: str, now: float | None = None) -> Path | None:
    """Writes a text that the screen is too small for, as `write_crash` does."""
    from edge_tui import __version__

    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    path = state_folder() / f"crash-{stamp}-{os.getpid()}.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"edge-tui {__version__}\n{sanitise(scrub(text))}\n")
        for old in sorted(path.parent.glob("crash-*.log"))[:-MAX_FILES]:
            old.unlink(missing_ok=True)
    except OSError:
        return None
    return path
