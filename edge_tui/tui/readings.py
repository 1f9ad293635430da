"""Has an engine read prompts beside the runs: one at a time, and the newest request wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.engine.events import Died, Failed, Finished, Loaded, TokenBatch, Unloaded
from edge_tui.transcript.run_state import RunState

if TYPE_CHECKING:
    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Engine, Request


@dataclass(slots=True, kw_only=True)
class Reading(RunState):
    """Holds one prompt that is read.

    Attributes:
        request: Its request, with `prompt_logps`.
        first: The token that the strategy took after it, if the request has it take one.
    """

    request: Request
    first: TokenBatch | None = None

    def apply(self, event: Event) -> None:
        """Updates the state by an event of this reading."""
        RunState.apply(self, event)
        if isinstance(event, TokenBatch) and len(event) and self.first is None:
            self.first = event


class Readings:
    """Keeps the newest reading; the same request is not read again by the same model.

    Attributes:
        current: The newest reading; None before there is one.
    """

    def __init__(self) -> None:
        self.current: Reading | None = None
        self._engine: Engine | None = None
        self._runs: dict[int, Reading] = {}
        """Readings that the engine has not ended yet."""

    def attach(self, engine: Engine) -> None:
        """Takes another engine, which reads what waits."""
        self._engine = engine
        self._runs.clear()
        if self.current is not None and self.current.active:
            self._submit(self.current)

    def read(self, request: Request) -> Reading:
        """Reads a prompt; a reading under way gives way."""
        known = self.current
        if known is not None and known.request == request and known.phase != "failed":
            return known
        self.leave()
        self.current = reading = Reading(request=request)
        self._submit(reading)
        return reading

    def leave(self) -> None:
        """Stops a reading that goes on or waits; one that has ended is kept."""
        if self.current is not None and self.current.active:
            self.current = None
        if self._engine is not None:
            for run in self._runs:
                self._engine.cancel(run)

    def apply(self, event: Event) -> bool:
        """Takes an event of a reading; False for every other event."""
        if isinstance(event, Loaded | Unloaded) and self.current is not None and not self.current.active:
            self.current = None  # another model reads otherwise
        if isinstance(event, Died):
            for reading in self._runs.values():
                reading.apply(event)
            self._runs.clear()
        run = getattr(event, "run", None)
        if run not in self._runs:
            return False
        self._runs[run].apply(event)
        if isinstance(event, Finished | Failed):
            del self._runs[run]
        return True

    def _submit(self, reading: Reading) -> None:
        if self._engine is not None:
            self._runs[self._engine.submit(reading.request)] = reading
