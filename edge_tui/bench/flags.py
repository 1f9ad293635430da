"""The flags of `edge-tui bench`. Part of every start of the program, so it imports nothing."""

from __future__ import annotations

import argparse
from typing import Any

ARCHITECTURES = "qwen2-0.5b, qwen2-1.5b, phi-3-mini, qwen2-7b, llama-2-7b, llama-3.2-1b, tiny"


def add(commands: Any, parser: type[argparse.ArgumentParser]) -> None:
    """Adds the `bench` command with its own subcommands."""
    bench = commands.add_parser(
        "bench",
        help="measure speed and quality",
        description="Measures the engine: against the hardware, against generate(), and for quality.",
        allow_abbrev=False,
    )
    kinds = bench.add_subparsers(
        dest="bench", metavar="KIND", title="benches", required=True, parser_class=parser
    )
    speed = _kind(kinds, "speed", "tokens per second, share of the hardware's floor, ratio to generate()")
    _models(speed)
    speed.add_argument("--strategies", default="greedy", metavar="A,B", help="strategies (default: greedy)")
    speed.add_argument(
        "--set",
        dest="set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, for every strategy that has it; may be repeated",
    )
    speed.add_argument(
        "--peers", default="eager", metavar="A,B", help="eager, static or none (default: eager)"
    )
    speed.add_argument("--context", default="64", metavar="N,M", help="tokens of the prompt (default: 64)")
    speed.add_argument("--tokens", type=int, default=256, metavar="N", help="new tokens (default: 256)")
    _common(speed)

    figures = _kind(kinds, "figures", "the whole table of figures that the engine is held to")
    figures.add_argument("--only", default="", metavar="TEXT", help="figures whose name holds this text")
    _common(figures)


def _kind(kinds: Any, name: str, summary: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    return kind


def _models(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--models", default="", metavar="A,B", help="demo/expert, cached repositories, or folders"
    )
    to.add_argument(
        "--random",
        default="",
        metavar="A,B",
        help=f"random weights of an architecture's true size: {ARCHITECTURES}",
    )
    to.add_argument("--second", default="", metavar="NAME", help="amateur or draft; random if the models are")
    to.add_argument(
        "--precisions",
        default="auto",
        metavar="A,B",
        help="auto, float32, bf16, fp16, int8, 4bit (default: auto)",
    )


def _common(to: argparse.ArgumentParser) -> None:
    to.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    to.add_argument("--rounds", type=int, default=3, metavar="N", help="counted rounds (default: 3)")
    to.add_argument(
        "--seconds", type=float, default=3.0, metavar="S", help="most seconds of one decode (default: 3)"
    )
    to.add_argument(
        "--budget", type=float, default=0.0, metavar="S", help="begin nothing new after so many seconds"
    )
    to.add_argument(
        "--json", dest="json_file", default="", metavar="FILE", help="keep results there, as they come"
    )
    to.add_argument("--markdown", default="", metavar="FILE", help="write the table there at the end")
    to.add_argument("--csv", default="", metavar="FILE", help="the same for spreadsheets")
    to.add_argument("-q", "--quiet", action="store_true", help="no progress on standard error")
