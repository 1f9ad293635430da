"""Describes benchmark jobs and their timings. Plain data; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_tui.engine.port import Request
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

    def request(self, prompt: str, **more: Any) -> Request:
        """Makes a request that decodes the job; `more` has fields that differ."""
        fields = {"seed": self.seed, "max_length": self.tokens, **more}
        return Request(prompt, self.strategy, dict(self.values), **fields)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times one decode, in seconds.

    Attributes:
        first: From the call to the first token.
        decode: From the first token to the last.
        tokens: New tokens of a row.
        prompt: Tokens of the prompt.
        waited: After the first token, for steps that were made ready; no part of `decode`.
    """

    first: float
    decode: float
    tokens: int
    prompt: int
    waited: float = 0.0

    @property
    def step(self) -> float:
        """Seconds for one token of each row; the first belongs to the prompt."""
        return self.decode / (self.tokens - 1) if self.tokens > 1 else float("nan")
