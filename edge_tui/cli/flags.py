"""The flags of `edge-tui models`, `config` and `doctor`. Part of every start, so it imports nothing."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any, parser: type[argparse.ArgumentParser]) -> None:
    """Adds the three commands."""
    _models(commands, parser)
    _config(commands, parser)
    doctor = commands.add_parser(
        "doctor",
        help="check this machine and terminal",
        description="Checks Python, torch, GPU, terminal, cache and disk, and says what to do about each.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object per check")


def _models(commands: Any, parser: type[argparse.ArgumentParser]) -> None:
    models = commands.add_parser(
        "models",
        help="list the models here, download others",
        description="The models of this machine and of the hub; HF_TOKEN and HF_ENDPOINT are honoured.",
        allow_abbrev=False,
    )
    kinds = models.add_subparsers(dest="models", metavar="[list]", title="what", parser_class=parser)
    kinds.add_parser("list", help="what is here", description="Lists the models of this machine.")
    for name, said in (
        ("look", "what a model on the hub would take, before a download"),
        ("pull", "download a model into the local cache"),
    ):
        one = kinds.add_parser(name, help=said, description=f"Says {said}." if name == "look" else None)
        one.add_argument("repository", metavar="REPO", help="an id like Qwen/Qwen2.5-0.5B-Instruct")


def _config(commands: Any, parser: type[argparse.ArgumentParser]) -> None:
    config = commands.add_parser(
        "config",
        help="show the settings and where they come from",
        description="Prints every setting with its source; writes your own file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    config.add_argument("--config", metavar="FILE", help="read this file instead of your own config.toml")
    kinds = config.add_subparsers(dest="what", metavar="[show]", title="what", parser_class=parser)
    kinds.add_parser("show", help="every setting and its source", description="Prints every setting.")
    kinds.add_parser(
        "init",
        help="write your own config.toml, every key commented out",
        description="Writes your own config.toml with every default as a comment; an existing one stays.",
    )
    old = kinds.add_parser(
        "import",
        help="take over an old YAML configuration",
        description="Reads an old YAML configuration and writes its settings into your own config.toml.",
    )
    old.add_argument("old", metavar="OLD.yaml", help="the file to read")
