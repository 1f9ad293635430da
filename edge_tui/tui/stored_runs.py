"""Builds the workbench's runs and conversations from those that the history stores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.config.precedence import TEMPERATURE
from edge_tui.history.restore import finished_of, started_of, transcript_of
from edge_tui.tui.conversation import Exchange, of_messages
from edge_tui.tui.run_params import ParamPatch
from edge_tui.tui.session import Meter, Run

if TYPE_CHECKING:
    from edge_tui.history.runs import StoredRun
    from edge_tui.history.store import Store
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.conversation import Conversation

StoredTurns = list[tuple["StoredRun", "Transcript", dict[int, str]]]
"""Runs with their tokens and the texts of their model's ids; the newest turn first."""


def read_turns(store: Store, run: int) -> StoredTurns:
    """Reads a run, and those that led to it in its conversation."""
    turns: StoredTurns = []
    token_strings: dict[str, dict[int, str]] = {}
    seen: set[int] = set()
    # A file from elsewhere may name itself as what came before.
    while run not in seen:
        seen.add(run)
        stored = store.load(run)
        if stored.model not in token_strings:
            token_strings[stored.model] = store.token_strings(stored.model)
        turns.append((stored, transcript_of(stored), token_strings[stored.model]))
        before = store.find(stored.entry.parent)
        run = before.id if before is not None else run
    return turns


def run_of(stored: StoredRun, transcript: Transcript, token_strings: dict[int, str]) -> Run:
    """Builds a screen's run from a stored one."""
    finished = finished_of(stored)
    run = Run(-stored.entry.id, stored.request, Meter(lambda: 0.0), phase="done", transcript=transcript)
    run.started, run.finished = started_of(stored), finished
    run.first_token = finished.time_to_first_token or None
    run.meter.total = finished.new_tokens
    run.uid, run.model, run.token_strings = stored.entry.uid, stored.model, token_strings
    run.models = stored.models
    run.stored = replace(stored, batches=(), prefix=None)
    return run


def conversation_of(turns: StoredTurns) -> Conversation | None:
    """Builds the conversation of which a run is the newest turn; None for a prompt on its own."""
    stored = turns[0][0]
    if isinstance(stored.request.prompt, str):
        return None
    talk = of_messages(stored.request.prompt, stored.entry.conversation)
    for exchange, each in zip(reversed(talk.exchanges), turns, strict=False):
        # An answer that was changed since is not the one that was read.
        run = run_of(*each)
        if each is turns[0] or Exchange("", run).answer == exchange.stored_answer:
            exchange.run = run
    return talk


def values_of(stored: StoredRun, at_end: bool) -> ParamPatch:
    """Reads the settings of a run at its start, or at its last token."""
    request, started = stored.request, stored.started
    values = {name: each.value for name, each in started.values.items()} if started else request.values
    changes = {each.name: each.value for each in stored.changes} if at_end else {}
    return ParamPatch(
        {**values, **changes},
        mode="custom" if TEMPERATURE in changes else request.mode,
        max_length=request.max_length,
        stop=request.stop,
        chat=request.chat,
        system=request.system,
        template=request.template,
    )
