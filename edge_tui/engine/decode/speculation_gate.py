"""Decides while a run goes on whether proposing tokens is faster than not; it depends on the text."""

from __future__ import annotations

_PATIENCE = 24
"""Steps before a decision, and between two."""


class SpeculationGate:
    """Compares what a run's steps give with what they cost.

    It sees counts, not times: the same text is decided the same way in every run.

    Args:
        without: Seconds that a step without proposals takes.
        proposing: Seconds of a step with them.
    """

    def __init__(self, without: float, proposing: float) -> None:
        self.proposed = 0
        self.accepted = 0
        self._ratio = without / proposing
        self._steps = 0
        self._tokens = 0

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted."""
        return self.accepted / self.proposed if self.proposed else 0.0

    def update(self, proposed: int, tokens: int) -> float | None:
        """Counts one step.

        Args:
            proposed: Tokens that were proposed.
            tokens: Tokens that came out, the target's own included.

        Returns:
            None while proposing pays or is not decided; else how many times as fast it is as not proposing.
        """
        self.proposed += proposed
        self.accepted += tokens - 1
        self._steps += 1
        self._tokens += tokens
        if self._steps < _PATIENCE:
            return None
        gain = self._tokens / self._steps * self._ratio
        self._steps = self._tokens = 0
        return gain if gain < 1 else None
