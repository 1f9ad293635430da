"""Measures the screen through a pseudo-terminal: `python -m edge_tui.bench.screen`.

A child process runs a small Textual app with the token pane, the inspector and a line that echoes keys,
and feeds itself 2,000 tokens a second. The parent reads its output, as fast as it comes or at 125 kB/s as
over a slow line, presses a key now and then, and measures how long the key's echo takes to arrive. Exits
with 1 when a figure misses its mark.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from time import monotonic, process_time, sleep, thread_time
from typing import TYPE_CHECKING

from edge_tui.engine.events import TOP, Started, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL_LIMIT = 0.050
SLOW_LIMIT = 0.350
SLOW_RATE = 125_000
"""Bytes per second: about 1 Mbit/s."""
FRAME_LIMIT = 0.050
_TEXT = "the sky appears blue because short wavelengths scatter more than long ones do, says Rayleigh"
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Scene:
    """One measurement.

    Attributes:
        name: For the table.
        columns, rows: Size of the terminal.
        rate: Bytes a second that the terminal takes; 0 means all.
        limit: Key to echo, 95th percentile, in seconds.
        preload: Tokens already in the pane when the measurement starts.
        one_line: Whether those tokens hold neither space nor line break.
        scrolls: Whether somebody pages through them meanwhile, with every frame.
    """

    name: str
    columns: int
    rows: int
    rate: int
    limit: float
    preload: int = 0
    one_line: bool = False
    scrolls: bool = False


SCENES = (
    Scene("local", 80, 24, 0, LOCAL_LIMIT),
    Scene("local", 120, 40, 0, LOCAL_LIMIT),
    Scene("125 kB/s", 80, 24, SLOW_RATE, SLOW_LIMIT),
    Scene("125 kB/s", 120, 40, SLOW_RATE, SLOW_LIMIT),
    Scene("100k tokens", 120, 40, 0, LOCAL_LIMIT, preload=100_000),
    Scene("100k paged", 120, 40, 0, LOCAL_LIMIT, preload=100_000, scrolls=True),
    Scene("1 MB line", 80, 24, 0, LOCAL_LIMIT, preload=250_000, one_line=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the child saw of itself. A frame is all that its thread does from one flush to the next."""

    made: int
    shown: int
    same: bool
    frame_p95: float
    flushes: int
    cpu: float


def synthetic(run: int, start: int, count: int, *, one_line: bool = False, seed: int = 7) -> TokenBatch:
    """A batch of plausible tokens with every column filled."""
    import numpy as np

    rng = random.Random(seed * 1_000_003 + start)
    texts = [
        "abcd" if one_line else "\n" if not (start + i) % 60 else " " + rng.choice(_WORDS)
        for i in range(count)
    ]
    p = [rng.random() ** rng.choice((0.1, 1.0, 3.0)) for _ in range(count)]
    steps = np.arange(start, start + count, dtype=np.int32)
    zeros = np.zeros(count, np.int32)
    top_ids = np.broadcast_to(np.arange(TOP, dtype=np.int32), (count, TOP))
    top_logp = np.broadcast_to(-np.arange(1, TOP + 1, dtype=np.float32), (count, TOP))
    logp = np.array([log(max(each, 1e-9)) for each in p], np.float32)
    return TokenBatch(
        run=run,
        step=steps,
        row=zeros,
        parent=zeros,
        id=steps % 1000,
        raw_logp=logp,
        final_logp=logp,
        rank=zeros,
        entropy=-logp,
        version=zeros,
        top_ids=top_ids,
        top_logp=top_logp,
        final_ids=top_ids,
        final_top_logp=top_logp,
        extras=np.zeros((count, 0), np.float32),
        text=tuple(texts),
    )


def started(run: int = 1) -> Started:
    """The start of a run without extras."""
    return Started(run, "greedy", 1, (), 8, 0, 0, 1 << 20, 1, {})


# The child.


def child(scene: Scene, rate: float, seconds: float, report: Path) -> None:
    """Runs the app under the terminal it was started in and writes an `Outcome`."""
    from textual.app import App, ComposeResult
    from textual.containers import Horizontal
    from textual.widgets import Static

    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.pacing import Pacer
    from edge_tui.tui.widgets.inspector import Inspector
    from edge_tui.tui.widgets.token_pane import TokenPane

    class Echo(Static, can_focus=True):
        """Shows how many keys have come."""

        keys = 0

        def on_key(self) -> None:
            self.keys += 1
            self.update(f"«{self.keys}»")

    class Bench(App[None]):
        CSS = """
        Echo { height: 1; }
        TokenPane { width: 1fr; height: 1fr; border: round $primary; }
        Inspector { width: 30; height: 1fr; }
        """

        def compose(self) -> ComposeResult:
            yield Echo("«0»")
            with Horizontal():
                yield TokenPane("…")
                yield Inspector(lambda ids: [f" {i}" for i in ids])

        def on_mount(self) -> None:
            self.transcript = Transcript(started())
            for start in range(0, scene.preload, 10_000):
                count = min(10_000, scene.preload - start)
                self.transcript.extend(synthetic(1, start, count, one_line=scene.one_line))
            self.made = scene.preload
            self.frames: list[float] = []
            self.pacer = Pacer(self)  # type: ignore[arg-type]
            self.pane = self.query_one(TokenPane)
            self.pane.show(self.transcript)
            self.query_one(Echo).focus()
            self.begun = 0.0
            self.upwards = True
            self.set_interval(Pacer.TICK, self.tick)

        def tick(self) -> None:
            if not self.begun:
                if self.pane.laid_out < scene.preload:
                    return
                self.begun, self.cpu, self.spent = monotonic(), process_time(), thread_time()
                report.with_suffix(".go").touch()
            due = scene.preload + int(min(monotonic() - self.begun, seconds) * rate)
            if due > self.made:
                self.transcript.extend(synthetic(1, self.made, due - self.made, one_line=scene.one_line))
                self.made = due
            if self.pacer.ready():
                before, self.spent = self.spent, thread_time()
                self.frames.append(self.spent - before)
                self.pane.refresh_tail()
                if scene.scrolls:
                    self.page()
            if monotonic() - self.begun > seconds + 1.0 and self.pane.laid_out == self.made:
                self.exit()

        def page(self) -> None:
            """A screen up; from the top on, down again."""
            at = self.pane.scroll_offset.y
            self.upwards = at > 0 and (self.upwards or at >= self.pane.max_scroll_y)
            step = self.pane.scroll_page_up if self.upwards else self.pane.scroll_page_down
            step(animate=False)

    app = Bench()
    app.run()
    spent = process_time() - app.cpu
    frames = sorted(app.frames)
    outcome = Outcome(
        made=app.made,
        shown=app.pane.laid_out,
        same=app.pane.shown_text == app.transcript.text,
        frame_p95=frames[int(len(frames) * 0.95)],
        flushes=len(frames),
        cpu=spent / (seconds + 1.0),
    )
    report.write_text(json.dumps(asdict(outcome)))


# The parent.


def measure(scene: Scene, rate: float, seconds: float) -> tuple[Outcome, list[float], int]:
    """Runs a child in a pseudo-terminal.

    Returns:
        What the child reports, the delays from key to echo in seconds, and the bytes it wrote.

    Raises:
        RuntimeError: the child ended without a report.
    """
    import fcntl
    import pty
    import struct
    import termios

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", scene.rows, scene.columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        order = [sys.executable, "-m", "edge_tui.bench.screen", "--child", json.dumps(asdict(scene))]
        order += ["--rate", str(rate), "--seconds", str(seconds), "--report", str(report)]
        process = subprocess.Popen(
            order, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        try:
            delays, size = _watch(master, process, scene, seconds, report)
        finally:
            os.close(master)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not report.exists():
            raise RuntimeError(
                f"The app under {scene.name} {scene.columns}×{scene.rows} ended without a report."
            )
        return Outcome(**json.loads(report.read_text())), delays, size


def _watch(
    master: int, process: subprocess.Popen[bytes], scene: Scene, seconds: float, report: Path
) -> tuple[list[float], int]:
    import select

    rng = random.Random(3)
    go = report.with_suffix(".go")
    delays: list[float] = []
    tail, size, pressed, sent = b"", 0, 0, 0.0
    begun = monotonic()
    allowance, last = 0.0, begun
    next_key = float("inf")
    while process.poll() is None and monotonic() - begun < seconds + 60:
        now = monotonic()
        if next_key == float("inf") and go.exists():
            next_key = now + 0.5
        if not sent and now >= next_key and pressed < seconds * 4:
            os.write(master, b"z")
            pressed, sent = pressed + 1, monotonic()
        allowance = min(allowance + (now - last) * scene.rate, 4096.0)
        last = now
        if scene.rate and allowance < 256:
            sleep(0.002)
            continue
        if not select.select([master], [], [], 0.005)[0]:
            continue
        try:
            data = os.read(master, min(65536, int(allowance)) if scene.rate else 65536)
        except OSError:
            break
        allowance -= len(data)
        size += len(data)
        tail = tail[-64:] + data
        if sent and f"«{pressed}»".encode() in tail:
            delays.append(monotonic() - sent)
            sent = 0.0
            next_key = monotonic() + 0.1 + 0.1 * rng.random()
    process.wait(10)
    return delays, size


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 0 when every figure holds."""
    parser = argparse.ArgumentParser(prog="python -m edge_tui.bench.screen", description=__doc__)
    parser.add_argument("--rate", type=float, default=2000.0, help="tokens per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--only", default="", help="measure scenes whose name holds this")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        child(Scene(**json.loads(arguments.child)), arguments.rate, arguments.seconds, arguments.report)
        return 0
    print(f"{arguments.rate:.0f} tokens/s for {arguments.seconds:.0f} s, measured through a pseudo-terminal")
    print(f"{'scene':<12} {'size':>7}  {'tokens':>15}  {'echo p50':>8} {'p95':>7} {'limit':>7}  "
          f"{'frame p95':>9} {'flushes':>7} {'cpu':>5} {'kB/s':>6}")  # fmt: skip
    failed = 0
    for scene in SCENES:
        if arguments.only not in scene.name:
            continue
        outcome, delays, size = measure(scene, arguments.rate, arguments.seconds)
        delays.sort()
        p50, p95 = (delays[int(len(delays) * q)] if delays else float("nan") for q in (0.5, 0.95))
        whole = outcome.shown == outcome.made and outcome.same
        good = whole and p95 < scene.limit and outcome.frame_p95 < FRAME_LIMIT
        failed += not good
        print(f"{scene.name:<12} {f'{scene.columns}×{scene.rows}':>7}  "
              f"{f'{outcome.shown}/{outcome.made}':>15}  {p50 * 1e3:>5.0f} ms {p95 * 1e3:>4.0f} ms "
              f"{scene.limit * 1e3:>4.0f} ms  {outcome.frame_p95 * 1e3:>6.1f} ms {outcome.flushes:>7} "
              f"{outcome.cpu:>5.0%} {size / arguments.seconds / 1e3:>6.0f}  {'ok' if good else 'FAILED'}",
              flush=True)  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
