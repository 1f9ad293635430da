"""Draws seeds, and derives those of a conversation's turns and of a run's samples. Loads no torch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_tui.engine.port import Message

MOST = 2**63 - 1
"""Largest seed."""
BITS = 31
"""Length of a seed that is drawn or derived: short enough to be typed."""


def draw() -> int:
    """Draws a seed from the system's randomness."""
    return secrets.randbits(BITS)


def of_turn(seed: int, turn: int) -> int:
    """Derives the seed of a conversation's turn; turn 0 has the conversation's own.

    A hash and not a sum: turn 1 of seed 7 must not have the random numbers of turn 0 of seed 8.
    """
    if turn == 0:
        return seed
    digest = blake2b(f"{seed}:{turn}".encode(), digest_size=8, person=b"edge-tui turn").digest()
    return int.from_bytes(digest, "big") >> (64 - BITS)


def of_sample(seed: int, sample: int) -> int:
    """Computes the seed of a run's sample: a run of that seed alone writes the same tokens."""
    return (seed + sample) % (MOST + 1)


def of_samples(seed: int, samples: int) -> list[int]:
    """Lists the seeds of a run's samples, the run's own first."""
    return [of_sample(seed, sample) for sample in range(samples)]


def span(seed: int, samples: int) -> str:
    """Writes the seeds of a run's samples: "7", or "7 to 9"."""
    return str(seed) if samples == 1 else f"{seed} to {of_sample(seed, samples - 1)}"


def of_prompt(seed: int, prompt: str | Sequence[Message]) -> int:
    """Derives the seed of a run from a fixed one: of a conversation's newest turn, else the seed itself."""
    if isinstance(prompt, str):
        return seed
    return of_turn(seed, max(sum(message.role == "user" for message in prompt) - 1, 0))
