"""`edge-tui` without a command: opens the workbench over an engine in this process or over a server."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from edge_tui.cli.flag_settings import load_settings
from edge_tui.cli.messages import PROGRAM
from edge_tui.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.config.settings import Settings


def run(flags: dict[str, Any]) -> int:
    """Opens the workbench; returns the exit status.

    Raises:
        UsageError: there is no terminal, or a flag cannot be used.
    """
    _require_terminal()
    url, key_file = flags.pop("connect", None), flags.pop("api_key_file", None)
    settings, notices = load_settings(flags)
    # Nothing that is made before the first frame becomes garbage, and looking for some takes a tenth of it.
    gc.disable()
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.app import run as run_app

    def recorder() -> Any:
        from edge_tui.history.recorder import recorder_of

        return recorder_of(settings)

    engine, telemetry = _local(settings) if url is None else _remote(url, key_file, settings)
    lessons = url is None and settings.ui.lessons
    return run_app(
        EdgeApp(engine, settings, notices=notices, telemetry=telemetry, recorder=recorder, lessons=lessons)
    )


def _local(settings: Settings) -> tuple[Callable[[], Any], Any]:
    """Returns a factory of engines in this process, and this machine's telemetry."""
    from edge_tui.machine.telemetry import Telemetry

    def engine() -> Any:
        from edge_tui.engine.local import LocalEngine

        return LocalEngine(settings.specs())

    return engine, Telemetry(settings.device)


def _remote(url: str, key_file: str | None, settings: Settings) -> tuple[Callable[[], Any], Any]:
    """Returns a factory of engines over a server, and the server's telemetry.

    Raises:
        UsageError: the address or the key cannot be used; said before the screen opens.
    """
    from edge_tui.engine.remote.http_client import base_url
    from edge_tui.engine.remote.telemetry import RemoteTelemetry
    from edge_tui.serve.options import read_key

    try:
        base = base_url(url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    key = read_key(key_file)
    model = settings.models.name if settings.source("models.name") == "--model" else ""

    def engine() -> Any:
        from edge_tui.engine.remote import RemoteEngine

        return RemoteEngine(base, key, model)

    return engine, RemoteTelemetry(base, key)


def _require_terminal() -> None:
    # Textual reads standard input and paints on standard error.
    streams = {"standard input": sys.stdin, "standard output": sys.stdout, "standard error": sys.stderr}
    for name, stream in streams.items():
        if stream is None or not stream.isatty():
            raise UsageError(
                f"the workbench needs a terminal and {name} is none; in pipes, use `{PROGRAM} run`."
            )
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise UsageError(
            f"the workbench needs a terminal that can move its cursor, but TERM is {term or 'not set'};"
            f" set TERM, or use `{PROGRAM} run`."
        )
