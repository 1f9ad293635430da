"""The app over an engine, a machine and files whose every text is hostile; a script to run on a terminal."""

from __future__ import annotations

import sys
import time
from dataclasses import fields, replace
from typing import Any

from edge_tui.config.settings import load
from edge_tui.engine.events import Event, Failed, Finished, Loaded, Loading, Noticed, Started, TokenBatch
from edge_tui.history.recorder import recorder_of
from edge_tui.machine.nvml import GpuSample
from edge_tui.machine.telemetry import Sample
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.app import run as start
from tests.hostile import ONE_LINE, TEXT
from tests.tui.engines import PictureEngine

MEANT = ("role", "strategy", "reason", "kind", "tier", "field")
"""Fields by which programs branch."""


class HostileEngine(PictureEngine):
    """Says everything in hostile words; the second run fails."""

    ready = 0.0
    """When the model that is being loaded is there."""

    def poll(self) -> list[Event]:
        if time.monotonic() < self.ready:
            news = [self.events.popleft() for _ in range(2)] if len(self.events) > 1 else []
        else:
            news = super().poll()
        return [self._worse(event) for event in news]

    def load(self, role: str) -> None:
        super().load(role)
        self.events.insert(0, Noticed(0, TEXT))
        self.ready = time.monotonic() + 0.5

    def decode(self, ids: Any) -> list[str]:
        return [TEXT] * len(ids)

    def refusal(self, strategy: str) -> str:
        return TEXT if strategy == "beam" else ""

    def _worse(self, event: Event) -> Event:
        if isinstance(event, Started):
            return replace(event, notices=(TEXT, ONE_LINE))
        if isinstance(event, TokenBatch):
            return replace(event, text=(ONE_LINE,) * len(event.text))
        if isinstance(event, Finished) and len(self.requests) > 1:
            return Failed(TEXT, event.run, "", f"Traceback\n{ONE_LINE}")
        if isinstance(event, Loaded | Loading):
            texts = {f.name for f in fields(event) if isinstance(getattr(event, f.name), str)}
            return replace(event, **dict.fromkeys(texts.difference(MEANT), TEXT))
        return event


class HostileMachine:
    """Another machine, as its server describes it."""

    host = refusal = TEXT
    sample = Sample(0.0, GpuSample(TEXT, 1, 2, 3, 4.0, 5.0, 6.0, 7.0), 1, 2.0, 3, 4)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def watch(self, device: str, *others: str) -> None: ...

    def latest(self) -> Sample:
        return replace(self.sample, time=time.monotonic())


if __name__ == "__main__":
    settings, notices = load()
    app = EdgeApp(
        HostileEngine,
        settings,
        notices=notices,
        telemetry=HostileMachine(),  # type: ignore[arg-type]
        recorder=lambda: recorder_of(settings),
    )
    sys.exit(start(app))
