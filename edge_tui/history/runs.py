"""Defines a stored run, and turns dataclasses into JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeVar

from edge_tui.engine.events import Finished, Loaded, ParamChanged, Started, TokenBatch
from edge_tui.engine.port import Request

T = TypeVar("T")

State = Literal["running", "finished", "failed", "interrupted"]
"""Finished runs include those that the user stopped; failed ones broke off with an error after their first
token; interrupted ones lost the process that wrote them."""

PREVIEW = 200
"""Characters of prompt and answer that a list has at hand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Describes a run in one line of the list.

    Attributes:
        id: Within this history.
        uid: The same wherever the run is carried.
        created: Seconds since 1970 at which it was requested.
        state: Its state.
        reason: The engine's reason for the end; "" while that is unknown.
        model: Name of the main model; "" before one was loaded.
        strategy: Registry name.
        tokens: Tokens of all rows, those of the prefix included.
        seconds: From the first token to the last, 0 while unknown.
        prompt: The beginning of the newest user turn.
        answer: The beginning of the answer, "" while it is written.
        conversation: Name that the turns of a conversation share; "" outside of one.
        turn: Position of the answer among the conversation's turns.
        parent: `uid` of the run whose answer came before in the conversation.
    """

    id: int
    uid: str
    created: float
    state: State
    reason: str
    model: str
    strategy: str
    tokens: int
    seconds: float
    prompt: str
    answer: str
    conversation: str = ""
    turn: int = 0
    parent: str = ""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Holds everything about one run.

    Attributes:
        entry: Its line in the list.
        request: The request.
        started: The event of its beginning; None if it never began.
        finished: The event of its end; None for a run that failed or was interrupted.
        models: Models by role.
        versions: Versions of the programs that took part, by name.
        changes: New values of parameters while it went on, and while its prefix came.
        prefix: Tokens that it continues, as one row.
        batches: Its own tokens, in the order in which they came.
        message: The error, for a failed run.
        token_strings: Texts of ids, of a run that comes from elsewhere; a history has them for a whole model.
    """

    entry: Entry
    request: Request
    started: Started | None = None
    finished: Finished | None = None
    models: Mapping[str, Loaded] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[ParamChanged, ...] = ()
    prefix: TokenBatch | None = None
    batches: tuple[TokenBatch, ...] = ()
    message: str = ""
    token_strings: Mapping[int, str] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The newest user turn, whole."""
        return prompt_of(self.request)

    @property
    def model(self) -> str:
        """Name of the main model."""
        return self.entry.model


def prompt_of(request: Request) -> str:
    """Returns the text that was typed: the prompt, or the newest user turn."""
    if isinstance(request.prompt, str):
        return request.prompt
    return next((turn.content for turn in reversed(request.prompt) if turn.role == "user"), "")


def to_json(value: object) -> str:
    """Writes dataclasses as compact JSON in ASCII; numbers may be NaN or infinite."""
    return json.dumps(value, separators=(",", ":"), default=asdict)


def preview(text: str) -> str:
    """Cuts a text to its beginning, on one line."""
    return " ".join(text[: 4 * PREVIEW].split())[:PREVIEW]
