"""Declares the flags of `edge-tui bench`. Part of every start, so it imports nothing."""

from __future__ import annotations

import argparse
from typing import Any

ARCHITECTURES = "qwen2-0.5b, qwen2-1.5b, phi-3-mini, qwen2-7b, llama-2-7b, llama-3.2-1b, tiny"


def add(commands: Any) -> None:
    """Adds the `bench` command with its own subcommands."""
    bench = commands.add_parser(
        "bench",
        help="measure speed and quality",
        description="Measures the engine: against the hardware, against generate(), and for quality.",
        allow_abbrev=False,
    )
    kinds = bench.add_subparsers(dest="bench", metavar="KIND", title="benches", required=True)
    _add_speed(kinds)
    _add_table(kinds)
    _add_quality(kinds)
    _add_compare(kinds)
    _add_figures(kinds)


def _add_speed(kinds: Any) -> None:
    speed = _kind(kinds, "speed", "tokens per second, share of the hardware's floor, ratio to generate()")
    _models(speed)
    speed.add_argument("--strategies", default="greedy", metavar="A,B", help="strategies (default: greedy)")
    _parameters(speed)
    speed.add_argument(
        "--peers", default="eager", metavar="A,B", help="eager, static or none (default: eager)"
    )
    speed.add_argument("--context", default="64", metavar="N,M", help="tokens of the prompt (default: 64)")
    speed.add_argument("--tokens", type=int, default=256, metavar="N", help="new tokens (default: 256)")
    _rounds(speed)
    _common(speed)


def _add_table(kinds: Any) -> None:
    table = _kind(kinds, "table", "speed, memory and time to first token by model, strategy and batch size")
    _models(table)
    table.add_argument(
        "--strategies",
        default="greedy,beam,top_k,top_p",
        metavar="A,B",
        help="strategies (default: greedy,beam,top_k,top_p)",
    )
    _parameters(table)
    table.add_argument("--batches", default="1", metavar="N,M", help="answers side by side (default: 1)")
    table.add_argument("--peers", default="none", metavar="A,B", help="eager, static or none (default: none)")
    table.add_argument("--context", default="64", metavar="N", help="tokens of the prompt (default: 64)")
    table.add_argument("--tokens", type=int, default=256, metavar="N", help="new tokens (default: 256)")
    _rounds(table)
    _common(table)


def _add_quality(kinds: Any) -> None:
    quality = _kind(kinds, "quality", "perplexity, F1 and speed by precision and strategy")
    _models(quality, "fp16, on a CPU float32, then int8 and 4bit")
    quality.add_argument(
        "--strategies", default="greedy,beam", metavar="A,B", help="strategies (default: greedy,beam)"
    )
    _parameters(quality)
    text = quality.add_mutually_exclusive_group()
    text.add_argument("--text", default="", metavar="FILE", help="text for the perplexity")
    text.add_argument(
        "--dataset", default="", metavar="NAME", help="the same from datasets: name[:configuration[:split]]"
    )
    quality.add_argument("--qa", default="", metavar="FILE", help="questions and answers, JSON lines, for F1")
    quality.add_argument("--questions", type=int, default=50, metavar="N", help="how many (default: 50)")
    quality.add_argument("--answer", type=int, default=32, metavar="N", help="most tokens of an answer")
    quality.add_argument("--window", type=int, default=1024, metavar="N", help="tokens seen at once")
    quality.add_argument("--stride", type=int, default=512, metavar="N", help="how far the window moves")
    quality.add_argument(
        "--text-tokens", type=int, default=16384, metavar="N", help="most tokens of the text"
    )
    _common(quality)


def _add_compare(kinds: Any) -> None:
    compare = _kind(kinds, "compare", "the ratios of the results of two benches")
    compare.add_argument("a", metavar="A", help="a file that --json has written")
    compare.add_argument("b", metavar="B", help="another")
    _files(compare, "write the ratios there")


def _add_figures(kinds: Any) -> None:
    figures = _kind(kinds, "figures", "the whole table of figures that the engine is held to")
    figures.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name holds this text")
    _rounds(figures)
    _common(figures)


def _kind(kinds: Any, name: str, summary: str) -> argparse.ArgumentParser:
    kind: argparse.ArgumentParser = kinds.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    return kind


def _models(to: argparse.ArgumentParser, precisions: str = "auto") -> None:
    to.add_argument(
        "--models", default="", metavar="A,B", help="demo/expert, cached repositories, or folders"
    )
    to.add_argument(
        "--random",
        default="",
        metavar="A,B",
        help=f"random weights of an architecture's true size: {ARCHITECTURES}",
    )
    to.add_argument(
        "--second",
        default="",
        metavar="NAME",
        help="amateur or draft, random if the models are (default: the model)",
    )
    to.add_argument(
        "--precisions",
        default="" if precisions != "auto" else "auto",
        metavar="A,B",
        help=f"auto, float32, bf16, fp16, int8, 4bit (default: {precisions})",
    )


def _parameters(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--set",
        dest="set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, for every strategy that has it; may be repeated",
    )


def _rounds(to: argparse.ArgumentParser) -> None:
    to.add_argument("--rounds", type=int, default=3, metavar="N", help="counted rounds (default: 3)")
    to.add_argument(
        "--seconds", type=float, default=3.0, metavar="S", help="most seconds of one decode (default: 3)"
    )


def _common(to: argparse.ArgumentParser) -> None:
    to.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    to.add_argument(
        "--budget", type=float, default=0.0, metavar="S", help="begin nothing new after so many seconds"
    )
    to.add_argument("-q", "--quiet", action="store_true", help="no progress on standard error")
    _files(to)


def _files(
    to: argparse.ArgumentParser, json: str = "keep results there (default: a new file in the data folder)"
) -> None:
    to.add_argument("--json", dest="json_file", default="", metavar="FILE", help=json)
    to.add_argument("--markdown", default="", metavar="FILE", help="write the table there at the end")
    to.add_argument("--csv", default="", metavar="FILE", help="the same for spreadsheets")
