"""Declares the flags of `edge-tui serve`. Loads neither fastapi nor torch."""

from __future__ import annotations

import argparse
from typing import Any

from edge_tui.cli.arguments import add_value

DESCRIPTION = (
    "Serves the engine over HTTP: /infer, and OpenAI's /v1. On this machine only, unless there is a key:"
    " the variable EDGE_TUI_API_KEY or --api-key-file."
)


def add(commands: Any, add_settings: Any) -> None:
    """Adds the command.

    Args:
        commands: The subparsers of the command line.
        add_settings: Adds the flags of settings, which are the defaults of what requests leave out.
    """
    serve = commands.add_parser(
        "serve",
        help="serve the engine over HTTP",
        description=DESCRIPTION,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    where = serve.add_argument_group("where")
    add_value(where, "--host", "ADDRESS", "address to listen on; 127.0.0.1 without it")
    add_value(where, "--port", "N", "port to listen on; 8000 without it, 0: any", kind=int)
    name = "a name that clients may call this server by; may be repeated"
    add_value(where, "--allow-host", "NAME", name, "hosts", action="append")
    add_value(where, "--api-key-file", "FILE", "the key that clients must present")
    limits = serve.add_argument_group("limits")
    add_value(limits, "--max-queue", "N", "requests that may wait; 64", "queue", int)
    add_value(limits, "--max-tokens", "N", "most new tokens of an answer; 4096", "tokens", int)
    add_value(limits, "--max-rows", "N", "most answers or beams of a request; 16", "rows", int)
    add_value(limits, "--max-prompts", "N", "most prompts of a request; 128", "prompts", int)
    add_value(limits, "--max-seconds", "S", "most seconds of one generation; 300", "seconds", float)
    add_value(limits, "--drain-seconds", "S", "what requests get to finish after SIGTERM; 10", "drain", float)
    limits.add_argument(
        "--allow-model-management",
        dest="manage",
        action="store_true",
        help="let clients load and unload models",
    )
    add_settings(serve, screen=False)
