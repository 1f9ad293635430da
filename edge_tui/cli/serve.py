"""`edge-tui serve` as the command line calls it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edge_tui.errors import UsageError
from edge_tui.serve.bind_socket import bind
from edge_tui.serve.options import OptionError, Options, read_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings

OWN = ("host", "port", "hosts", "queue", "tokens", "rows", "prompts", "seconds", "drain", "manage")
"""Flags that are fields of `Options`."""


def take(given: dict[str, Any]) -> dict[str, Any]:
    """Takes the server's own flags out of those given; what is left are settings."""
    return {name: given.pop(name) for name in (*OWN, "api_key_file") if name in given}


def run(settings: Settings, notices: Sequence[Notice], own: dict[str, Any]) -> int:
    """Serves until a signal; returns the exit status.

    Raises:
        UsageError: the flags cannot be served with, or a library is missing.
    """
    missing = [name for name in ("fastapi", "uvicorn", "httptools") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"serving needs {' and '.join(missing)}; install them with pip install 'edge-tui[serve]'."
        )
    try:
        key = read_key(own.pop("api_key_file", None))
        options = Options(key=key, **{**own, "hosts": tuple(own.get("hosts", ()))})
        listener = bind(options.host, options.port)
    except OptionError as error:
        raise UsageError(str(error)) from error
    from edge_tui.serve.server import serve

    return serve(settings, notices, options, listener)
