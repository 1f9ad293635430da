"""Logs, while a strategy's step runs, what a token's record holds beside the step's result.

A chain logs what each of its links returns, from which the record reads the link that removed a token. A part
that takes the best candidate without luck logs how far ahead it is. Nothing is copied and nothing waits: the
numbers are read once the token is chosen.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from edge_tui.decoders.core.best import argmax, argmax_and_lead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

KEPT = -1
"""Stands for the number of the link that removed a token where none did."""
UNKNOWN = -2
"""The same where it is not known: in old records, and where there is no token."""
OWN = -3
"""The same where the strategy itself removed it, and none of its links: greedy, contrastive's alpha."""

_active: ContextVar[StepLog | None] = ContextVar("step_log", default=None)


class StepLog:
    """Holds what one step logged.

    Attributes:
        removals: By position, the number of each link (or `OWN`) and the logits `[R, V]` that it left, in
            order. A step that reads one position has position 0 alone.
        leads: By position, float32 `[R]` each: by how much the best candidate was ahead where no luck decided
            (nats), +inf where luck did.
        takes_best: True where a part takes the best in any case, so that no luck decides at all.
    """

    def __init__(self) -> None:
        self.removals: dict[int, list[tuple[int, Tensor]]] = {}
        self.leads: dict[int, list[Tensor]] = {}
        self.takes_best = False
        self._position = 0

    def add(self, number: int, z: Tensor) -> None:
        """Logs the logits that a link left."""
        self.removals.setdefault(self._position, []).append((number, z))

    def add_lead(self, lead: Tensor) -> None:
        """Logs by how much the best candidate was ahead."""
        self.leads.setdefault(self._position, []).append(lead)

    def move_to(self, position: int) -> None:
        """Logs for another of the positions that a step reads, from here on."""
        self._position = position

    def lead(self, position: int = 0) -> Tensor | None:
        """Gives how far ahead the best was when it was first taken, float32 `[R]`; None where luck decided.

        What takes the best of one candidate that is left is infinitely far ahead.
        """
        leads = self.leads.get(position)
        if not leads:
            return None
        first = leads[0]
        for each in leads[1:]:
            first = first.minimum(each)
        return first


def active() -> StepLog | None:
    """Gives the log of the step that runs; None where none is kept."""
    return _active.get()


@contextmanager
def logged() -> Iterator[StepLog]:
    """Keeps a log of the step that runs inside."""
    log = StepLog()
    token = _active.set(log)
    try:
        yield log
    finally:
        _active.reset(token)


def move_to(position: int) -> None:
    """Tells the log that what follows is about another of the positions that a step reads."""
    if (log := _active.get()) is not None:
        log.move_to(position)


def take_best(z: Tensor, acts: Tensor | None = None) -> Tensor:
    """Finds the best candidate of each row, as `argmax` does, where no luck decides.

    Args:
        z: float `[R, V]`.
        acts: bool `[R, 1]`, rows where it decides; None is all.

    Returns:
        int64 `[R, 1]`.
    """
    log = _active.get()
    if log is None:
        return argmax(z)
    ids, lead = argmax_and_lead(z)
    log.takes_best |= acts is None
    log.add_lead(lead if acts is None else lead.where(acts[:, 0], float("inf")))
    return ids
