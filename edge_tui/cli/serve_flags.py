"""The flags of `edge-tui serve`. Loads neither fastapi nor torch."""

from __future__ import annotations

import argparse
from typing import Any

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
    where.add_argument("--host", metavar="ADDRESS", help="address to listen on; 127.0.0.1 without it")
    where.add_argument("--port", type=int, metavar="N", help="port to listen on; 8000 without it, 0: any")
    where.add_argument(
        "--allow-host",
        dest="hosts",
        action="append",
        metavar="NAME",
        help="a name that clients may call this server by; may be repeated",
    )
    where.add_argument("--api-key-file", metavar="FILE", help="the key that clients must present")
    limits = serve.add_argument_group("limits")
    limits.add_argument("--max-queue", dest="queue", type=int, metavar="N", help="requests that may wait; 64")
    limits.add_argument(
        "--max-tokens", dest="tokens", type=int, metavar="N", help="most new tokens of an answer; 4096"
    )
    limits.add_argument(
        "--max-rows", dest="rows", type=int, metavar="N", help="most answers or beams of a request; 16"
    )
    limits.add_argument(
        "--max-prompts", dest="prompts", type=int, metavar="N", help="most prompts of a request; 128"
    )
    limits.add_argument(
        "--max-seconds", dest="seconds", type=float, metavar="S", help="most seconds of one generation; 300"
    )
    limits.add_argument(
        "--drain-seconds",
        dest="drain",
        type=float,
        metavar="S",
        help="what requests get to finish after SIGTERM; 10",
    )
    limits.add_argument(
        "--allow-model-management",
        dest="manage",
        action="store_true",
        help="let clients load and unload models",
    )
    add_settings(serve, screen=False)
