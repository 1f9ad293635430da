"""Keeps the logs, warnings and progress bars of libraries off the terminal, where answers and screens go.

Loads no library. The part of their output that matters reaches the user as an error's sentence or a notice.
"""

from __future__ import annotations

import logging
import os

_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCH_LOGS": "-all",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""Read by each library when it is first imported, also in processes that are started; a user's own stay."""


def silence() -> None:
    """Silences libraries that are imported from now on, and Python's warnings."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Without any handler, logging would print warnings to standard error by itself.
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    logging.captureWarnings(True)
