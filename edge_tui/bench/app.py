"""Measures the whole app, on the demo pair if nothing else is named: `python -m edge_tui.bench.app`.

Three figures through a pseudo-terminal: seconds from process start to the first painted frame and to the
model being ready (the medians of some starts), and tokens per second streamed to the screen as a fraction of
headless. Streamed and headless rounds alternate in one process, so that a busy machine slows both alike; in a
headless round the screen stands still and nobody reads the tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import Finished, Loaded
from edge_tui.engine.port import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME_LIMIT = 0.7
READY_LIMIT = 5.0
RATE_LIMIT = 150.0
RATIO_LIMIT = 0.95
_TOKENS = 512
_SIZE = (45, 160)
_KINDS = ("headless", "streamed", "streamed", "headless")
"""So that a machine that gets slower, or quicker, favours neither."""


def child(report: Path, rounds: int, invented: str) -> None:
    """The app itself, driven from within: alternates headless and streamed rounds, then leaves."""
    from edge_tui.config.settings import Models, Settings
    from edge_tui.tui.app import EdgeApp

    settings = Settings()
    if invented:
        from edge_tui.bench.random_models import write_random

        folder = write_random(report.parent / invented, invented)
        settings = replace(settings, models=Models(name=str(folder)))

    def engine() -> Any:
        from edge_tui.engine.local import LocalEngine

        if not invented:
            return LocalEngine(settings.specs())
        from edge_tui.bench.edge_runner import load

        return LocalEngine(settings.specs(), lambda *call: load(*call, invented=True)[0])

    class Driven(EdgeApp):
        """Runs the rounds; everything else is the app as users have it."""

        def __init__(self) -> None:
            super().__init__(engine, settings)
            self.rates: dict[str, list[float]] = {"headless": [], "streamed": []}
            self.round = -1
            self.kind = "loading"
            self.ready = 0.0

        def _tick(self) -> None:
            if self.kind == "headless":
                assert self.session.engine is not None
                self._watch(self.session.engine.poll())
            elif self.kind != "done":
                super()._tick()
                self._watch(self._seen())

        def _seen(self) -> list[object]:
            run = self.session.run
            if self.kind == "loading":
                return list(self.session.loaded.values())
            finished = run.finished if run is not None else None
            return [finished] if finished is not None else []

        def _watch(self, news: Sequence[object]) -> None:
            for event in news:
                if isinstance(event, Loaded) and self.kind == "loading":
                    self.ready = time.time()
                    self._next()
                elif isinstance(event, Finished):
                    self.rates[self.kind].append(event.tokens_per_second)
                    self._next()
                    return

        def _next(self) -> None:
            self.round += 1
            if self.round >= 2 * rounds:
                self.kind = "done"
                report.write_text(json.dumps({"ready": self.ready, "rates": self.rates}))
                self.shutdown.leave(0)
                return
            self.kind = _KINDS[self.round % len(_KINDS)]
            strategy = "greedy" if invented else "top_p"
            request = Request("import os\n", strategy, seed=self.round // 2, max_length=_TOKENS)
            if self.kind == "headless":
                assert self.session.engine is not None
                self.session.engine.submit(request)
            else:
                self.workbench.pane.focus()  # as ctrl+j does
                self.session.start(request)

    Driven().run()


def measure(rounds: int, invented: str = "") -> dict[str, Any]:
    """Runs the child.

    Args:
        rounds: Of each kind.
        invented: Architecture of a model with random weights, in place of the demo pair.

    Returns:
        `ready` in seconds after the process was started, `rates` by kind of round.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        order = ["edge_tui.bench.app", "--child", str(report), "--rounds", str(rounds)]
        began = time.time()
        _started([*order, "--random", invented], folder, to_the_end=True)
        result = json.loads(report.read_text())
        return {"ready": result["ready"] - began, "rates": result["rates"]}


def first_frame() -> float:
    """Seconds from the start of the app, as users start it, to its first frame."""
    with tempfile.TemporaryDirectory() as folder:
        return _started(["edge_tui"], folder, to_the_end=False)


def _started(module: list[str], home: str, to_the_end: bool) -> float:
    """Runs a module in a pseudo-terminal of 160×45, to its end or its first frame.

    Returns:
        Seconds to the first frame, 0 if there was none.
    """
    import fcntl
    import pty
    import select
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *_SIZE, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": home}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile the app anew
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    frame, seen = 0.0, b""
    try:
        while process.poll() is None and time.time() - began < 300 and (to_the_end or not frame):
            if not select.select([master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not frame:
                seen += data
                if b"strategy" in seen and b"prompt" in seen:
                    frame = time.time() - began
        if to_the_end:
            process.wait(10)
    finally:
        os.close(master)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return frame


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="python -m edge_tui.bench.app", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind")
    parser.add_argument("--starts", type=int, default=5, help="of the app, to its first frame")
    parser.add_argument("--random", default="", help="random weights of an architecture's true size")
    parser.add_argument("--json", type=Path, help="keep the figures there")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        child(arguments.child, arguments.rounds, arguments.random)
        return 0
    result = measure(arguments.rounds, arguments.random)
    others = range(0 if arguments.random else arguments.starts - 1)
    result["ready"] = statistics.median([result["ready"], *(measure(0)["ready"] for _ in others)])
    result["frame"] = statistics.median(first_frame() for _ in range(max(arguments.starts, 1)))
    streamed, headless = (statistics.median(result["rates"][kind]) for kind in ("streamed", "headless"))
    pairs = zip(result["rates"]["streamed"], result["rates"]["headless"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    if arguments.json:
        arguments.json.write_text(json.dumps(result | {"ratio": ratio}))
    rows = (
        (
            "first painted frame",
            f"{result['frame']:.2f} s",
            f"≤ {FRAME_LIMIT} s",
            result["frame"] <= FRAME_LIMIT,
        ),
        (
            "model ready",
            f"{result['ready']:.2f} s",
            f"≤ {READY_LIMIT} s",
            result["ready"] <= READY_LIMIT,
        ),
        ("streamed", f"{streamed:.0f} tok/s", f"≥ {RATE_LIMIT:.0f} tok/s", streamed >= RATE_LIMIT),
        ("headless", f"{headless:.0f} tok/s", "", True),
        ("streamed / headless", f"{ratio:.3f}", f"≥ {RATIO_LIMIT}", ratio >= RATIO_LIMIT),
    )
    for name, value, limit, good in rows:
        print(f"{name:<22} {value:>12}  {limit:<14} {'ok' if good else 'FAILED'}")
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
