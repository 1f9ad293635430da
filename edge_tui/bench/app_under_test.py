"""Runs the app with a driver inside, for `edge_tui.bench.app`: rounds on the screen and rounds without.

python -m edge_tui.bench.app_under_test REPORT ROUNDS [ARCHITECTURE]
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.config.settings import Models, Settings
from edge_tui.engine.events import Finished, Loaded
from edge_tui.engine.port import Request
from edge_tui.tui import app as tui_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.port import Engine

TOKENS = 512
_ORDER = ("headless", "streamed", "streamed", "headless")
"""A machine that gets slower, or quicker, favours neither kind."""


class MeasuredApp(tui_app.EdgeApp):
    """Alternates headless and streamed rounds, writes a report, and exits.

    Args:
        report: File for the time at which the model was ready and the rates by kind of round.
        rounds: Of each kind.
        architecture: Of a model with random weights; "" is the demo pair.
    """

    CSS_PATH = str(Path(tui_app.__file__).with_name("app.tcss"))  # else relative to this file

    def __init__(self, report: Path, rounds: int, architecture: str) -> None:
        settings = Settings()
        if architecture:
            from edge_tui.bench.random_models import write_random

            folder = write_random(report.parent / architecture, architecture)
            settings = replace(settings, models=Models(name=str(folder)))

        def engine() -> Engine:  # its imports are part of what is measured, and happen where the app has them
            from edge_tui.engine.local import LocalEngine

            if not architecture:
                return LocalEngine(settings.specs())
            from edge_tui.bench.edge_runner import load

            return LocalEngine(settings.specs(), lambda *call: load(*call, random_weights=True)[0])

        super().__init__(engine, settings)
        self._file = report
        self._rounds = rounds
        self._strategy = "greedy" if architecture else "top_p"
        self.rates: dict[str, list[float]] = {"headless": [], "streamed": []}
        self.round = -1
        self.kind = "loading"
        self.ready = 0.0

    def _tick(self) -> None:
        if self.kind == "headless":
            assert self.session.engine is not None
            self._advance(self.session.engine.poll())
        elif self.kind != "done":
            super()._tick()
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
    report, rounds, *architecture = sys.argv[1:]
    MeasuredApp(Path(report), int(rounds), *architecture or [""]).run()
