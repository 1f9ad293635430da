"""Describes a rotary position embedding in numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("default", "linear", "llama3", "longrope", "yarn", "dynamic", "factors", "proportional")
"""Types of rotary scaling implemented here. The dynamic one changes nothing up to the model's own limit,
which no run exceeds. The last one has a divisor for each frequency, as GGUF files of Llama 3 store it."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Describes a model's rotary embedding.

    Attributes:
        kind: One of `KINDS`.
        theta: Base of the frequencies.
        dim: Rotated width of each head; less than the head's width for partial rotary embeddings.
        original: Positions the model was trained on before its context was extended.
        context: Positions after the extension.
        scaling: The type's own numbers, as config.json names them.
    """

    kind: str
    theta: float
    dim: int
    original: int
    context: int
    scaling: Mapping[str, Any] = field(default_factory=dict)

    def totals(self, total: int) -> range:
        """Returns the lengths of a run that have the same factors as one of `total` positions."""
        if self.kind != "longrope":
            return range(sys.maxsize)
        beyond = self.original + 1
        return range(beyond, sys.maxsize) if total >= beyond else range(beyond)
