"""Folds an engine's events into state: of one run (`RunState`), of the engine and its models (`EngineState`).

Neither holds tokens: the transcript, the history and a response each store those in their own way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_tui.engine import events

if TYPE_CHECKING:
    from edge_tui.engine.events import Event, Failed, Finished, Loaded, PromptRead, Started

Phase = Literal["queued", "reading", "decoding", "stopping", "done", "failed"]
"""The stage of a run. No event says "stopping": it is set by the caller that cancels the run."""


@dataclass(slots=True, kw_only=True)
class RunState:
    """Folds the events of one run.

    Attributes:
        phase: The stage it is in.
        prompt: The prompt's log-probabilities, if they were requested.
        started: The event of its beginning.
        finished: The event of its end; None for a failed run.
        failed: The event of its failure.
        first_token: Seconds from leaving the queue to the first token.
        compiled: Kernels that were compiled before it begins, and all of them.
        read: Tokens of the prompt that were read, and all of them; reported for long prompts alone.
        steps: New tokens of each row so far.
        notices: Sentences that turned up while it went on.
    """

    phase: Phase = "queued"
    prompt: PromptRead | None = None
    started: Started | None = None
    finished: Finished | None = None
    failed: Failed | None = None
    first_token: float | None = None
    compiled: tuple[int, int] = (0, 0)
    read: tuple[int, int] = (0, 0)
    steps: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """True until the run has finished or failed."""
        return self.phase not in ("done", "failed")

    def apply(self, event: Event) -> None:
        """Updates the state by an event of this run, or by the engine's death."""
        match event:
            case events.PromptRead():
                self.prompt = event
            case events.Started():
                self.started = event
                if self.phase == "queued":
                    self.phase = "reading"
            case events.Progress(what="compile"):
                self.compiled = (event.done, event.total)
            case events.Progress(what="prefill"):
                self.read = (event.done, event.total)
            case events.FirstToken():
                self.first_token = event.seconds
            case events.TokenBatch():
                if self.phase == "reading":
                    self.phase = "decoding"
                if len(event) and self.started is not None:
                    self.steps = int(event.step[-1]) + 1 - self.started.prefix_tokens
            case events.Noticed():
                self.notices.append(event.message)
            case events.Finished():
                self.phase, self.finished = "done", event
            case events.Failed():
                self.phase, self.failed = "failed", event
            case events.Died():
                if self.active:
                    self.phase = "failed"


@dataclass(slots=True, kw_only=True)
class EngineState:
    """Folds an engine's events about models and about its own end.

    Attributes:
        loaded: Models by role.
        loading: Name, bytes read and bytes in all of models that load, by role.
        dead: The reason why the engine's thread ended, "" while it runs.
    """

    loaded: dict[str, Loaded] = field(default_factory=dict)
    loading: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    dead: str = ""

    def reset(self) -> None:
        """Clears the state, for a new engine in the old one's place."""
        self.loaded.clear()
        self.loading.clear()
        self.dead = ""

    def apply(self, event: Event) -> None:
        """Updates the state by any event of the engine."""
        match event:
            case events.Loading():
                self.loading[event.role] = (event.name, 0, 0)
            case events.Progress(what="load"):
                for role, (name, _, _) in self.loading.items():
                    if name == event.name or not event.name:
                        self.loading[role] = (name, event.done, event.total)
            case events.Loaded():
                self.loading.pop(event.role, None)
                self.loaded[event.role] = event
            case events.Unloaded():
                for role in event.roles:
                    self.loaded.pop(role, None)
            case events.Failed():
                self.loading.clear()
            case events.Died():
                self.reset()
                self.dead = event.message

    def model_for(self, role: str) -> Loaded | None:
        """Returns the model that plays a role; the main one is the expert too unless there is another."""
        return self.loaded.get(role) or (self.loaded.get("model") if role == "expert" else None)
