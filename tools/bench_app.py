"""Measures the whole app, on the demo pair if nothing else is named: `python -m tools.bench_app`.

Three figures through a pseudo-terminal: seconds from process start to the first painted frame and to the
model being ready (the medians of some starts), and tokens per second streamed to the screen as a fraction of
headless.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.bench import app
from edge_tui.bench.goal import Goal
from edge_tui.bench.report import FIGURES, text_table
from edge_tui.bench.terminal import in_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FRAME = Goal("first painted frame", "s", 0.7, at_least=False)
READY = Goal("model ready", "s", 5.0, at_least=False)
STREAMED = Goal("streamed", "tok/s", 150)
RATIO = Goal("streamed / headless", "×", 0.95)


def print_figures(values: Iterable[tuple[Goal, float]]) -> int:
    """Prints a table of figures.

    Returns:
        The exit status: 1 if one misses its bound.
    """
    rows = [goal.row(value) for goal, value in values]
    print(text_table(FIGURES, rows))
    return int(any(row["verdict"] == "missed" for row in rows))


def first_frame() -> float:
    """Measures seconds from the start of the app, as users start it, to its first frame; 0 if none came."""
    began, shown = time.time(), b""
    with (
        tempfile.TemporaryDirectory() as folder,
        in_terminal(["edge_tui"], app.COLUMNS, app.ROWS, HOME=folder) as terminal,
    ):
        while time.time() - began < app.PATIENCE and (output := terminal.read(0.05)) is not None:
            shown += output
            if b"strategy" in shown and b"prompt" in shown:
                return time.time() - began
    return 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_app", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind")
    parser.add_argument("--starts", type=int, default=5, help="of the app, to its first frame")
    parser.add_argument("--random", default="", help="random weights of an architecture's true size")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args(argv)
    result = app.measure(arguments.rounds, arguments.random)
    more_starts = range(0 if arguments.random else arguments.starts - 1)
    ready = statistics.median([result["ready"], *(app.measure(0)["ready"] for _ in more_starts)])
    frame = statistics.median(first_frame() for _ in range(max(arguments.starts, 1)))
    streamed, headless = (statistics.median(result["rates"][kind]) for kind in ("streamed", "headless"))
    ratio = app.ratio(result["rates"])
    if arguments.json:
        arguments.json.write_text(json.dumps({**result, "ready": ready, "frame": frame, "ratio": ratio}))
    status = print_figures([(FRAME, frame), (READY, ready), (STREAMED, streamed), (RATIO, ratio)])
    print(f"headless: {headless:.0f} tok/s")
    return status


if __name__ == "__main__":
    sys.exit(main())
