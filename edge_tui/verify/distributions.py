"""Makes random logits and parameter values by formulas that hold in every version of numpy.

`numpy.random.RandomState` is frozen, so a number is enough to make the same logits again: in a report, in a
test, and in the environment where `tools/record_references.py` ran another program on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.random import RandomState

Float32: TypeAlias = NDArray[np.float32]
Values: TypeAlias = dict[str, float]

SIZES = (2, 3, 5, 17, 64, 300, 1000, 4097, 32000, 152064)
"""Vocabularies; 4,097 is the first that CPUs search by radix."""
_SHARES = (0.1, 0.12, 0.16, 0.18, 0.16, 0.14, 0.08, 0.045, 0.012, 0.003)
"""Share in which each is taken: the small ones have most of the corners, and the large ones cost time."""
KINDS = ("normal", "flat", "sharp", "steep", "grid", "few", "equal", "zipf", "huge")


class Parameter(Protocol):
    """Declares a parameter: what `edge_tui.decoders.base.Param` has of it."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def default(self) -> float:
        """The default."""

    @property
    def low(self) -> float:
        """The lower bound."""

    @property
    def high(self) -> float:
        """The upper bound."""

    @property
    def neutral(self) -> float | None:
        """The value at which it does nothing; None if there is none."""

    @property
    def integer(self) -> bool:
        """True for whole numbers alone."""

    @property
    def low_open(self) -> bool:
        """True if the lower bound is out of range itself."""


def size(random: RandomState, most: int = SIZES[-1]) -> int:
    """Chooses a vocabulary of at most `most` tokens."""
    return min(int(random.choice(SIZES, p=_SHARES)), most)


def logits(random: RandomState, vocab: int, kind: str) -> Float32:
    """Makes logits float32 `[V]`; about every third time some are −inf, at least one is not.

    Kinds: normal, with standard deviation 3; flat 0.1; sharp 10; steep 40, where probabilities underflow;
    grid, with many equal; few, where one in a hundred is left; equal, all of them; zipf, as
    in text; huge 10⁴.
    """
    z = random.standard_normal(vocab)
    scale = {"flat": 0.1, "sharp": 10.0, "steep": 40.0, "huge": 1e4, "equal": 0.0}.get(kind, 3.0)
    z = z * scale + random.standard_normal()
    if kind == "grid":
        z = np.round(z)
    if kind == "zipf":
        z = random.permutation(-np.log(np.arange(1, vocab + 1)))
    share = 0.99 if kind == "few" else (0.0, 0.0, 0.3)[random.randint(3)]
    removed = random.random_sample(vocab) < share
    removed[random.randint(vocab)] = False
    z[removed] = -inf
    return z.astype(np.float32)


def value(random: RandomState, param: Parameter) -> float:
    """Chooses a value of a parameter: its default, its neutral value, an end of its range, or any."""
    bottom = param.low + (param.high - param.low) * 1e-3 if param.low_open else param.low
    dice = random.random_sample()
    if dice < 0.35:
        number = param.default
    elif dice < 0.45 and param.neutral is not None:
        number = param.neutral
    elif dice < 0.55:
        number = (bottom, param.high)[random.randint(2)]
    elif dice < 0.75:  # close to the lower end, where many parameters do the most
        number = bottom + (param.high - bottom) * 10 ** random.uniform(-4, 0)
    else:
        number = random.uniform(bottom, param.high)
    return float(round(number)) if param.integer else float(np.float32(number))


def values(random: RandomState, params: Sequence[Parameter]) -> Values:
    """Chooses values: of all parameters, or of the first and one more, the others at their defaults."""
    drawn = {param.name: value(random, param) for param in params}
    if random.random_sample() < 0.5 or not params:
        return drawn
    varied = {params[0].name, params[random.randint(len(params))].name}
    return {param.name: drawn[param.name] if param.name in varied else param.default for param in params}
