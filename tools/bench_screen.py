"""Measures the screen through a pseudo-terminal: `python -m tools.bench_screen`.

A child process runs a small app that feeds itself 2,000 tokens a second: the token pane, the inspector and a
line that echoes keys. The parent reads its output, as fast as it comes or at 125 kB/s as over a slow line,
presses a key now and then, and measures how long the key's echo takes to arrive. Exits with 1 when a figure
misses its mark.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict, dataclass
from math import inf, log, nan
from pathlib import Path
from time import monotonic, process_time, sleep, thread_time
from typing import TYPE_CHECKING

import numpy as np
from textual.app import App
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Static

from edge_tui.bench.terminal import in_terminal
from edge_tui.engine.events import TOP, Started, TokenBatch
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.compositor import RowCompositor
from edge_tui.tui.pacing import Pacer
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from edge_tui.bench.terminal import Terminal

LOCAL_LIMIT = 0.050
SLOW_LIMIT = 0.350
SLOW_RATE = 125_000
"""Bytes per second: about 1 Mbit/s."""
FRAME_LIMIT = 0.050
_TEXT = "the sky appears blue because short wavelengths scatter more than long ones do, says Rayleigh"
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Scene:
    """Describes one measurement.

    Attributes:
        name: For the table.
        columns, rows: Size of the terminal.
        rate: Bytes a second that the terminal takes; 0 means all.
        limit: Key to echo, 95th percentile, in seconds.
        preload: Tokens already in the pane when the measurement starts.
        one_line: True if those tokens hold neither space nor line break.
        scrolls: True pages through them meanwhile, with every frame.
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
    """Holds the app's own measurements. A frame is all that its thread does from one flush to the next.

    Attributes:
        made, shown: Tokens.
        same: True if the pane shows the transcript's text.
        frame_p95: Seconds.
        flushes: Number of frames.
        cpu: Share of a processor.
    """

    made: int
    shown: int
    same: bool
    frame_p95: float
    flushes: int
    cpu: float


def synthetic(run: int, start: int, count: int, *, one_line: bool = False, seed: int = 7) -> TokenBatch:
    """Makes a batch of plausible tokens with every column filled."""
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


class Echo(Static, can_focus=True):
    """Counts keys on the screen."""

    keys = 0

    def on_key(self) -> None:
        """Counts a key, and shows the count."""
        self.keys += 1
        self.update(f"«{self.keys}»")


class ScreenApp(App[None]):
    """Feeds itself tokens at a rate and times its own frames.

    Args:
        scene: The measurement.
        rate: Tokens a second.
        seconds: Seconds of the scene.
        ready: A file that is made when the preloaded tokens are laid out.
    """

    CSS = """
    Echo { height: 1; }
    TokenPane { width: 1fr; height: 1fr; border: round $primary; }
    Inspector { width: 30; height: 1fr; }
    """

    def __init__(self, scene: Scene, rate: float, seconds: float, ready: Path, without: str = "") -> None:
        super().__init__()
        self._scene = scene
        self._rate = rate
        self._seconds = seconds
        self._go = ready
        self._without = without
        self._made = scene.preload
        self._frames: list[float] = []
        self._began = self._cpu = self._thread = 0.0
        self._upwards = True
        self._transcript = Transcript(Started(1, "greedy", 1, (), 8, 0, 0, 1 << 20, 1, {}))

    def get_default_screen(self) -> Screen[object]:
        """Makes a screen with our compositor, unless it is measured without."""
        screen: Screen[object] = Screen(id="_default")
        if self._without != "compositor":
            screen._compositor = RowCompositor()
        return screen

    def compose(self) -> ComposeResult:
        """Lays out the echo of keys, the tokens and the inspector."""
        yield Echo("«0»")
        yield Static("", id="count")
        with Horizontal():
            yield TokenPane("…")
            yield Inspector(lambda ids: [f" {i}" for i in ids])

    def on_mount(self) -> None:
        """Fills the transcript, and starts the flushes."""
        for start in range(0, self._scene.preload, 10_000):
            self._extend(start, min(10_000, self._scene.preload - start))
        self._pacer = Pacer(self)  # type: ignore[arg-type]
        self._pane = self.query_one(TokenPane)
        self._pane.show(self._transcript)
        self.query_one(Echo).focus()
        self.set_interval(Pacer.TICK, self._tick)

    def _extend(self, start: int, count: int) -> None:
        self._transcript.extend(synthetic(1, start, count, one_line=self._scene.one_line))

    def _tick(self) -> None:
        if not self._began:
            if self._pane.laid_out < self._scene.preload:
                return
            self._began, self._cpu, self._thread = monotonic(), process_time(), thread_time()
            self._go.touch()
        over = monotonic() - self._began
        due = self._scene.preload + int(min(over, self._seconds) * self._rate)
        if due > self._made:
            self._extend(self._made, due - self._made)
            self._made = due
        if self._without == "pace" or self._pacer.ready():
            before, self._thread = self._thread, thread_time()
            self._frames.append(self._thread - before)
            self._pane.refresh_tail()
            self.query_one("#count", Static).update(f"{self._made:,} tokens")
            if self._scene.scrolls:
                self._page()
        if monotonic() - self._began > self._seconds + 1.0 and self._pane.laid_out == self._made:
            self.exit()

    def _page(self) -> None:
        """Scrolls a screen up; from the top on, down again."""
        at = self._pane.scroll_offset.y
        self._upwards = at > 0 and (self._upwards or at >= self._pane.max_scroll_y)
        scroll = self._pane.scroll_page_up if self._upwards else self._pane.scroll_page_down
        scroll(animate=False)

    def outcome(self) -> Outcome:
        """Sums up, once the app has ended."""
        frames = sorted(self._frames)
        return Outcome(
            made=self._made,
            shown=self._pane.laid_out,
            same=self._pane.shown_text == self._transcript.text,
            frame_p95=frames[int(len(frames) * 0.95)],
            flushes=len(frames),
            cpu=(process_time() - self._cpu) / (self._seconds + 1.0),
        )


def feed(scene: str, rate: float, seconds: float, without: str, report: Path) -> None:
    """Runs the app under test and writes an `Outcome`."""
    app = ScreenApp(Scene(**json.loads(scene)), rate, seconds, report.with_suffix(".go"), without)
    app.run()
    report.write_text(json.dumps(asdict(app.outcome())))


def measure(scene: Scene, rate: float, seconds: float, without: str = "") -> tuple[Outcome, list[float], int]:
    """Runs the app in a pseudo-terminal.

    Returns:
        The app's report, the delays from key to echo in seconds, and the bytes that it wrote.

    Raises:
        RuntimeError: the app ended without a report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        module = ["tools.bench_screen", "--rate", str(rate), "--seconds", str(seconds)]
        module += ["--without", without] if without else []
        with in_terminal(
            [*module, "--child", json.dumps(asdict(scene)), str(report)], scene.columns, scene.rows
        ) as terminal:
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
    parser = argparse.ArgumentParser(prog="python -m tools.bench_screen", description=__doc__)
    parser.add_argument("--rate", type=float, default=2000.0, help="tokens per second")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--only", default="", help="measure scenes whose name holds this")
    parser.add_argument(
        "--without", default="", choices=("compositor", "pace"), help="leave that out, to see what it gains"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        feed(
            arguments.child[0], arguments.rate, arguments.seconds, arguments.without, Path(arguments.child[1])
        )
        return 0
    print(f"{arguments.rate:.0f} tokens/s for {arguments.seconds:.0f} s, measured through a pseudo-terminal")
    print(f"{'scene':<12} {'size':>7}  {'tokens':>15}  {'echo p50':>8} {'p95':>7} {'limit':>7}  "
          f"{'frame p95':>9} {'flushes':>7} {'cpu':>5} {'kB/s':>6}")  # fmt: skip
    failed = 0
    for scene in SCENES:
        if arguments.only not in scene.name:
            continue
        outcome, delays, size = measure(scene, arguments.rate, arguments.seconds, arguments.without)
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
