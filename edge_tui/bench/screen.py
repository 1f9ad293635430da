"""Measures the screen through a pseudo-terminal: `python -m edge_tui.bench.screen`.

A child process runs a small app that feeds itself 2,000 tokens a second. The parent reads its output, as fast
as it comes or at 125 kB/s as over a slow line, presses a key now and then, and measures how long the key's
echo takes to arrive. Exits with 1 when a figure misses its mark.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict
from math import inf, nan
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from edge_tui.bench.screen_under_test import Outcome, Scene
from edge_tui.bench.terminal import in_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.bench.terminal import Terminal

LOCAL_LIMIT = 0.050
SLOW_LIMIT = 0.350
SLOW_RATE = 125_000
"""Bytes per second: about 1 Mbit/s."""
FRAME_LIMIT = 0.050
SCENES = (
    Scene("local", 80, 24, 0, LOCAL_LIMIT),
    Scene("local", 120, 40, 0, LOCAL_LIMIT),
    Scene("125 kB/s", 80, 24, SLOW_RATE, SLOW_LIMIT),
    Scene("125 kB/s", 120, 40, SLOW_RATE, SLOW_LIMIT),
    Scene("100k tokens", 120, 40, 0, LOCAL_LIMIT, preload=100_000),
    Scene("100k paged", 120, 40, 0, LOCAL_LIMIT, preload=100_000, scrolls=True),
    Scene("1 MB line", 80, 24, 0, LOCAL_LIMIT, preload=250_000, one_line=True),
)


def measure(scene: Scene, rate: float, seconds: float) -> tuple[Outcome, list[float], int]:
    """Runs the app in a pseudo-terminal.

    Returns:
        The app's report, the delays from key to echo in seconds, and the bytes that it wrote.

    Raises:
        RuntimeError: the app ended without a report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        module = ["edge_tui.bench.screen_under_test", json.dumps(asdict(scene)), str(rate), str(seconds)]
        with in_terminal([*module, str(report)], scene.columns, scene.rows) as terminal:
            delays, size = _press_keys(terminal, scene, seconds, report.with_suffix(".go"))
        if not report.exists():
            raise RuntimeError(
                f"The app under {scene.name} {scene.columns}×{scene.rows} ended without a report."
            )
        return Outcome(**json.loads(report.read_text())), delays, size


def _press_keys(terminal: Terminal, scene: Scene, seconds: float, ready: Path) -> tuple[list[float], int]:
    """Presses a key now and then, and reads at the scene's rate until the app ends."""
    rng = random.Random(3)
    delays: list[float] = []
    tail, size, pressed, sent = b"", 0, 0, 0.0
    began = last = monotonic()
    allowance, next_key = 0.0, inf
    while monotonic() - began < seconds + 60:
        now = monotonic()
        if next_key == inf and ready.exists():
            next_key = now + 0.5
        if not sent and now >= next_key and pressed < seconds * 4:
            terminal.write(b"z")
            pressed, sent = pressed + 1, monotonic()
        allowance = min(allowance + (now - last) * scene.rate, 4096.0)
        last = now
        if scene.rate and allowance < 256:
            sleep(0.002)
            continue
        output = terminal.read(0.005, int(allowance) if scene.rate else 65536)
        if output is None:
            break
        allowance -= len(output)
        size += len(output)
        tail = tail[-64:] + output
        if sent and f"«{pressed}»".encode() in tail:
            delays.append(monotonic() - sent)
            sent = 0.0
            next_key = monotonic() + 0.1 + 0.1 * rng.random()
    terminal.process.wait(10)
    return delays, size


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0 when every figure holds."""
    parser = argparse.ArgumentParser(prog="python -m edge_tui.bench.screen", description=__doc__)
    parser.add_argument("--rate", type=float, default=2000.0, help="tokens per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--only", default="", help="measure scenes whose name holds this")
    arguments = parser.parse_args(argv)
    print(f"{arguments.rate:.0f} tokens/s for {arguments.seconds:.0f} s, measured through a pseudo-terminal")
    print(f"{'scene':<12} {'size':>7}  {'tokens':>15}  {'echo p50':>8} {'p95':>7} {'limit':>7}  "
          f"{'frame p95':>9} {'flushes':>7} {'cpu':>5} {'kB/s':>6}")  # fmt: skip
    failed = 0
    for scene in SCENES:
        if arguments.only not in scene.name:
            continue
        outcome, delays, size = measure(scene, arguments.rate, arguments.seconds)
        delays.sort()
        p50, p95 = (delays[int(len(delays) * q)] if delays else nan for q in (0.5, 0.95))
        complete = outcome.shown == outcome.made and outcome.same
        good = complete and p95 < scene.limit and outcome.frame_p95 < FRAME_LIMIT
        failed += not good
        print(f"{scene.name:<12} {f'{scene.columns}×{scene.rows}':>7}  "
              f"{f'{outcome.shown}/{outcome.made}':>15}  {p50 * 1e3:>5.0f} ms {p95 * 1e3:>4.0f} ms "
              f"{scene.limit * 1e3:>4.0f} ms  {outcome.frame_p95 * 1e3:>6.1f} ms {outcome.flushes:>7} "
              f"{outcome.cpu:>5.0%} {size / arguments.seconds / 1e3:>6.0f}  {'ok' if good else 'FAILED'}",
              flush=True)  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
