"""Runs a small app that feeds itself tokens, for `edge_tui.bench.screen`.

    python -m edge_tui.bench.screen_under_test SCENE RATE SECONDS REPORT

The app has the token pane, the inspector and a line that echoes keys.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from time import monotonic, process_time, thread_time
from typing import TYPE_CHECKING

import numpy as np
from textual.app import App
from textual.containers import Horizontal
from textual.widgets import Static

from edge_tui.engine.events import TOP, Started, TokenBatch
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.pacing import Pacer
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from textual.app import ComposeResult

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the app's own measurements. A frame is all that its thread does from one flush to the next.

    Attributes:
        made, shown: Tokens.
        same: Whether the pane shows the transcript's text.
        frame_p95: Seconds.
        flushes: How many frames there were.
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
        self.keys += 1
        self.update(f"«{self.keys}»")


class ScreenApp(App[None]):
    """Feeds itself tokens at a rate and times its own frames.

    Args:
        scene: The measurement.
        rate: Tokens a second.
        seconds: How long.
        ready: A file that is made when the preloaded tokens are laid out.
    """

    CSS = """
    Echo { height: 1; }
    TokenPane { width: 1fr; height: 1fr; border: round $primary; }
    Inspector { width: 30; height: 1fr; }
    """

    def __init__(self, scene: Scene, rate: float, seconds: float, ready: Path) -> None:
        super().__init__()
        self._scene = scene
        self._rate = rate
        self._seconds = seconds
        self._go = ready
        self._made = scene.preload
        self._frames: list[float] = []
        self._began = self._cpu = self._thread = 0.0
        self._upwards = True
        self._transcript = Transcript(Started(1, "greedy", 1, (), 8, 0, 0, 1 << 20, 1, {}))

    def compose(self) -> ComposeResult:
        yield Echo("«0»")
        with Horizontal():
            yield TokenPane("…")
            yield Inspector(lambda ids: [f" {i}" for i in ids])

    def on_mount(self) -> None:
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
        if self._pacer.ready():
            before, self._thread = self._thread, thread_time()
            self._frames.append(self._thread - before)
            self._pane.refresh_tail()
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


def main(scene: str, rate: str, seconds: str, report: str) -> None:
    """Runs the app and writes an `Outcome`."""
    app = ScreenApp(Scene(**json.loads(scene)), float(rate), float(seconds), Path(report).with_suffix(".go"))
    app.run()
    Path(report).write_text(json.dumps(asdict(app.outcome())))


if __name__ == "__main__":
    main(*sys.argv[1:])
