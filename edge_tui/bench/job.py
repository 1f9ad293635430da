"""Describes benchmark jobs and their timings. Plain data; loads no torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_tui.errors import EdgeError


class BenchError(EdgeError):
    """Signals something that cannot be measured here; one sentence: the thing, the limit, the way out."""

    code = "bench"


@dataclass(frozen=True, slots=True)
class Job:
    """Describes one way of decoding.

    Attributes:
        strategy: Registry name.
        values: Parameters that differ from the strategy's defaults.
        prompt: Tokens of the prompt.
        tokens: New tokens.
        seed: Of the draws.
        batch: Answers to the prompt that are decoded side by side.
    """

    strategy: str
    values: Mapping[str, float | str] = field(default_factory=dict)
    prompt: int = 64
    tokens: int = 256
    seed: int = 0
    batch: int = 1

    @property
    def title(self) -> str:
        """The strategy with its parameters and batch."""
        parameters = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                          for name, value in self.values.items())  # fmt: skip
        title = f"{self.strategy} ({parameters})" if parameters else self.strategy
        return f"{title}, batch {self.batch}" if self.batch > 1 else title


@dataclass(frozen=True, slots=True)
class Timing:
    """Times one decode, in seconds.

    Attributes:
        first: From the call to the first token.
        decode: From the first token to the last.
        tokens: New tokens of a row.
        prompt: Tokens of the prompt.
    """

    first: float
    decode: float
    tokens: int
    prompt: int

    @property
    def step(self) -> float:
        """Seconds for one token of each row; the first belongs to the prompt."""
        return self.decode / (self.tokens - 1) if self.tokens > 1 else float("nan")


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums up several decodes of one contestant: medians, and how far they lie apart.

    Attributes:
        step: Seconds for one token.
        spread: Half the distance between the slowest and the fastest, as a share of the median.
        first: Seconds to the first token.
        tokens, prompt: Of each decode.
        rounds: How many there were.
    """

    step: float
    spread: float
    first: float
    tokens: int
    prompt: int
    rounds: int

    @classmethod
    def of(cls, timings: Sequence[Timing]) -> Summary:
        """Summarises at least one decode."""
        steps = [timing.step for timing in timings]
        step = statistics.median(steps)
        return cls(
            step=step,
            spread=(max(steps) - min(steps)) / 2 / step,
            first=statistics.median(timing.first for timing in timings),
            tokens=timings[-1].tokens,
            prompt=timings[-1].prompt,
            rounds=len(timings),
        )
