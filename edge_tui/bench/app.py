"""Measures the whole app, on the demo pair if nothing else is named: `python -m edge_tui.bench.app`.

Three figures through a pseudo-terminal: seconds from process start to the first painted frame and to the
model being ready (the medians of some starts), and tokens per second streamed to the screen as a fraction of
headless. Streamed and headless rounds alternate in one process, so that a busy machine slows both alike; in a
headless round the screen stands still and nobody reads the tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.bench.goal import Goal, print_figures
from edge_tui.bench.terminal import in_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME = Goal("first painted frame", "s", 0.7, at_least=False)
READY = Goal("model ready", "s", 5.0, at_least=False)
STREAMED = Goal("streamed", "tok/s", 150)
RATIO = Goal("streamed / headless", "×", 0.95)
_COLUMNS, _ROWS = 160, 45
_PATIENCE = 300.0


def measure(rounds: int, architecture: str = "") -> dict[str, Any]:
    """Runs the app to the end of its rounds.

    Args:
        rounds: Of each kind.
        architecture: Of a model with random weights, in place of the demo pair.

    Returns:
        `ready` in seconds after the process was started, `rates` by kind of round.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        module = ["edge_tui.bench.app_under_test", str(report), str(rounds), architecture]
        began = time.time()
        with in_terminal(module, _COLUMNS, _ROWS, HOME=folder) as terminal:
            while terminal.read(0.05) is not None and time.time() - began < _PATIENCE:
                pass
            terminal.process.wait(10)
        result = json.loads(report.read_text())
        return {"ready": result["ready"] - began, "rates": result["rates"]}


def first_frame() -> float:
    """Measures seconds from the start of the app, as users start it, to its first frame; 0 if none came."""
    began, shown = time.time(), b""
    with (
        tempfile.TemporaryDirectory() as folder,
        in_terminal(["edge_tui"], _COLUMNS, _ROWS, HOME=folder) as terminal,
    ):
        while time.time() - began < _PATIENCE and (output := terminal.read(0.05)) is not None:
            shown += output
            if b"strategy" in shown and b"prompt" in shown:
                return time.time() - began
    return 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="python -m edge_tui.bench.app", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind")
    parser.add_argument("--starts", type=int, default=5, help="of the app, to its first frame")
    parser.add_argument("--random", default="", help="random weights of an architecture's true size")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args(argv)
    result = measure(arguments.rounds, arguments.random)
    more_starts = range(0 if arguments.random else arguments.starts - 1)
    ready = statistics.median([result["ready"], *(measure(0)["ready"] for _ in more_starts)])
    frame = statistics.median(first_frame() for _ in range(max(arguments.starts, 1)))
    streamed, headless = (result["rates"][kind] for kind in ("streamed", "headless"))
    ratio = statistics.median(a / b for a, b in zip(streamed, headless, strict=True))
    if arguments.json:
        arguments.json.write_text(json.dumps({**result, "ready": ready, "frame": frame, "ratio": ratio}))
    status = print_figures(
        [(FRAME, frame), (READY, ready), (STREAMED, statistics.median(streamed)), (RATIO, ratio)]
    )
    print(f"headless: {statistics.median(headless):.0f} tok/s")
    return status


if __name__ == "__main__":
    sys.exit(main())
