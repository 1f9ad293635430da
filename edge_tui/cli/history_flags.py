"""Declares the flags of `edge-tui history`. Part of every start, so it imports next to nothing."""

from __future__ import annotations

import argparse
from typing import Any

from edge_tui.cli.arguments import Append, add_value

_MOST = 20
"""Runs that a list shows where no number is named."""


def add(commands: Any) -> None:
    """Adds the command."""
    history = commands.add_parser(
        "history",
        help="list, search, show, export, import and delete runs",
        description="The runs that edge-tui has kept. RUN is a number or the beginning of a name, as `list`"
        " shows them, or `last`.",
        allow_abbrev=False,
    )
    history.set_defaults(most=_MOST, json=False)  # for the list that no word asks for
    kinds = history.add_subparsers(dest="what", metavar="[list]", title="what")

    def kind(name: str, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = kinds.add_parser(
            name, help=text, description=f"{text.capitalize()}."
        )
        return command

    for name, text in (("list", "runs, newest first"), ("search", "runs that hold every word of a query")):
        command = kind(name, text)
        if name == "search":
            command.add_argument("query", metavar="QUERY", nargs="+", help="words, or parts of them")
        command.add_argument(
            "-n", dest="most", metavar="N", type=int, default=_MOST, help="how many; 0 is all"
        )
        command.add_argument("--json", action="store_true", help="one JSON object per run")
    kind("show", "one run: settings, prompt and answer").add_argument("run", metavar="RUN")
    why = kind("why", "why a token of a run was taken, by the model that wrote it")
    why.add_argument("run", metavar="RUN")
    numbers = "its number, from 0 on; last, all (without one), or several: 0,7"
    why.add_argument("token", metavar="TOKEN", nargs="?", default="all", help=numbers)
    why.add_argument("--row", metavar="N", type=int, default=0, help="of samples: which one (0)")
    why.add_argument("--json", action="store_true", help="one JSON object per token")
    absent = argparse.SUPPRESS
    add_value(why, "--config", "FILE", "read this file instead of your own config.toml", default=absent)
    folder = "a folder with strategies of your own"
    add_value(why, "--decoders", "DIR", folder, "decoder_folders", action=Append, default=absent)
    diff = kind("diff", "two runs: what was set differently, and the first token that differs")
    diff.add_argument("run", metavar="RUN")
    diff.add_argument("other", metavar="OTHER")
    export = kind("export", "one run as a file")
    export.add_argument("run", metavar="RUN")
    export.add_argument(
        "--format", choices=("md", "json", "html", "svg"), help="md by default, or as the file is named"
    )
    export.add_argument("-o", "--output", metavar="FILE", help="where to; standard output without it")
    export.add_argument(
        "--theme",
        choices=("dark", "light", "high-contrast", "colour-blind"),
        default="dark",
        help="colours of an SVG",
    )
    ladders = "in HTML: the whole reason of these tokens, by the model that wrote it (0,7; last; all)"
    export.add_argument("--why", metavar="TOKENS", default="", help=ladders)
    kind("import", "runs that were exported as JSON").add_argument("files", metavar="FILE", nargs="+")
    delete = kind("delete", "runs, for good")
    delete.add_argument("runs", metavar="RUN", nargs="+")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")
