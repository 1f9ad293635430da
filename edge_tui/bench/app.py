"""Measures tokens per second in the app, as a fraction of headless: on the screen, and without.

Streamed and headless rounds alternate in one process, so that a busy machine slows both alike; in a headless
round the screen stands still and nobody reads the tokens. `measure` starts this module in a pseudo-terminal:
`python -m edge_tui.bench.app REPORT ROUNDS [MODEL]`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.bench.job import BenchError
from edge_tui.bench.random_models import write_random
from edge_tui.bench.terminal import in_terminal
from edge_tui.config.settings import Models, Settings
from edge_tui.engine.events import Finished, Loaded
from edge_tui.engine.port import Request
from edge_tui.tui import app as tui_app

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.engine.port import Engine

TOKENS = 512
_ORDER = ("headless", "streamed", "streamed", "headless")
"""A machine that gets slower, or quicker, favours neither kind."""


COLUMNS, ROWS = 160, 45
PATIENCE = 300.0
"""Seconds after which an app is given up."""


def measure(rounds: int, architecture: str = "") -> dict[str, Any]:
    """Runs the app to the end of its rounds, in a process and a pseudo-terminal of its own.

    Args:
        rounds: Of each kind.
        architecture: Of a model with random weights, in place of the demo pair.

    Returns:
        `ready` in seconds after the process was started, `rates` by kind of round.

    Raises:
        BenchError: the app ended without a report.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        model = write_random(Path(folder) / architecture, architecture) if architecture else ""
        module = [__spec__.name, str(report), str(rounds), str(model)]
        began = time.time()
        with in_terminal(module, COLUMNS, ROWS, HOME=folder) as terminal:
            while terminal.read(0.05) is not None and time.time() - began < PATIENCE:
                pass
            terminal.process.wait(10)
        if not report.exists():
            raise BenchError(f"The app under test ended with {terminal.process.returncode}.")
        result = json.loads(report.read_text(encoding="utf-8"))
        return {"ready": result["ready"] - began, "rates": result["rates"]}


def ratio(rates: Mapping[str, Sequence[float]]) -> float:
    """Computes the median of streamed over headless, round by round."""
    return statistics.median(a / b for a, b in zip(rates["streamed"], rates["headless"], strict=True))


class MeasuredApp(tui_app.EdgeApp):
    """Alternates headless and streamed rounds, writes a report, and exits.

    Args:
        report: File for the time at which the model was ready and the rates by kind of round.
        rounds: Of each kind.
        model: Folder of one with random weights; "" is the demo pair.
    """

    CSS_PATH = str(Path(tui_app.__file__).with_name("app.tcss"))  # else relative to this file

    def __init__(self, report: Path, rounds: int, model: str) -> None:
        settings = Settings(models=Models(name=model)) if model else Settings()

        def engine() -> Engine:  # its imports are part of what is measured, and happen where the app has them
            from edge_tui.engine.local import LocalEngine

            if not model:
                return LocalEngine(settings.specs())
            from edge_tui.bench.edge_runner import load

            return LocalEngine(settings.specs(), lambda *call: load(*call, random_weights=True)[0])

        super().__init__(engine, settings)
        self._file = report
        self._rounds = rounds
        self._strategy = "greedy" if model else "top_p"
        self.rates: dict[str, list[float]] = {"headless": [], "streamed": []}
        self.round = -1
        self.kind = "loading"
        self.ready = 0.0

    def tick(self) -> None:
        """Polls the engine itself in headless rounds; in the others does what the app does."""
        if self.kind == "headless":
            assert self.session.engine is not None
            self._advance(self.session.engine.poll())
        elif self.kind != "done":
            super().tick()
            run = self.session.run
            loaded = list(self.session.loaded.values()) if self.kind == "loading" else []
            self._advance([*loaded, *([run.finished] if run is not None and run.finished else [])])

    def _advance(self, events: Sequence[object]) -> None:
        """Begins the next round when the model is loaded, or the round's run has finished."""
        for event in events:
            if isinstance(event, Loaded) and self.kind == "loading":
                self.ready = time.time()
                self._begin_round()
            elif isinstance(event, Finished):
                self.rates[self.kind].append(event.tokens_per_second)
                self._begin_round()
                return

    def _begin_round(self) -> None:
        """Submits the next round's run, or writes the report after the last one."""
        self.round += 1
        if self.round >= 2 * self._rounds:
            self.kind = "done"
            self._file.write_text(json.dumps({"ready": self.ready, "rates": self.rates}))
            self.shutdown.leave(0)
            return
        self.kind = _ORDER[self.round % len(_ORDER)]
        request = Request("import os\n", self._strategy, seed=self.round // 2, max_length=TOKENS)
        if self.kind == "headless":
            assert self.session.engine is not None
            self.session.engine.submit(request)
        else:
            self.workbench.pane.focus()  # as ctrl+j does
            self.session.start(request)


if __name__ == "__main__":
    report, rounds, *model = sys.argv[1:]
    MeasuredApp(Path(report), int(rounds), *model or [""]).run()
