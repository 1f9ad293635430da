"""Whether proposing tokens is faster than not: it depends on the text, so it is measured while it runs."""

from __future__ import annotations

_PATIENCE = 24
"""Steps before a judgement, and between two."""
_LEAST_GAIN = 1.0
"""Rate with proposals over rate without, below which proposing is given up."""


class Worth:
    """Compares a run's pace with what it would be without proposals.

    Args:
        plain: Seconds that a step without proposals takes.
    """

    def __init__(self, plain: float) -> None:
        self.plain = plain
        self.proposed = 0
        self.accepted = 0
        self._steps = 0
        self._tokens = 0
        self._began = 0.0

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were taken."""
        return self.accepted / self.proposed if self.proposed else 0.0

    def saw(self, proposed: int, tokens: int, now: float) -> float | None:
        """Takes one step.

        Args:
            proposed: Tokens that were proposed.
            tokens: Tokens that came out, the target's own included.
            now: Monotonic seconds of its arrival.

        Returns:
            None while proposing pays or is not judged; else how many times as fast it is as not proposing.
        """
        self.proposed += proposed
        self.accepted += tokens - 1
        if not self._began:
            self._began = now
            return None
        self._steps += 1
        self._tokens += tokens
        if self._steps < _PATIENCE:
            return None
        gain = self._tokens * self.plain / max(now - self._began, 1e-9)
        self._steps, self._tokens, self._began = 0, 0, now
        return gain if gain < _LEAST_GAIN else None
