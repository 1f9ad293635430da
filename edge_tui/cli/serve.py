"""`edge-tui serve`: checks the flags, binds the socket and starts the server."""

from __future__ import annotations

from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from edge_tui.cli.flag_settings import load_settings, pop_flags
from edge_tui.errors import UsageError
from edge_tui.serve.options import Options, bind, read_key


def run(flags: dict[str, Any]) -> int:
    """Serves until a signal; returns the exit status.

    Raises:
        UsageError: a flag cannot be used, or a library is missing.
    """
    own = pop_flags(flags, [*(each.name for each in fields(Options)), "api_key_file"])
    settings, notices = load_settings(flags)
    missing = [name for name in ("fastapi", "uvicorn", "httptools") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"serving needs {' and '.join(missing)}; install them with pip install 'edge-tui[serve]'."
        )
    key = read_key(own.pop("api_key_file", None))
    options = Options(key=key, **{**own, "hosts": tuple(own.get("hosts", ()))})
    listener = bind(options.host, options.port)
    from edge_tui.serve.server import serve

    return serve(settings, notices, options, listener)
