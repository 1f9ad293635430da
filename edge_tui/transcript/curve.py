"""Divides an answer into cells and gives each a height: the answer as a curve, all of it in sight.

Heights have fixed bounds, so that curves of two runs compare and a cell never changes because of another one.
A cell of several tokens has the height of the one that stands out most; none is averaged away.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.transcript.token_table import Column
    from edge_tui.transcript.transcript import Transcript

    Floats = NDArray[np.float32]

HEIGHTS = 8
"""Of a cell: 0 to 7."""
UNKNOWN = -1
"""Height of a cell of which no number is known."""
_NATS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
_COUNTS = (2.0, 4.0, 11.0, 31.0, 101.0, 301.0, 1001.0)
_COUNT_SCALE = "1, up to 3, 10, 30, 100, 300, 1,000, or more tokens"
_MARGINS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_MARGIN_SCALE = "steps at .01 .03 .1 .3 1 3 10 nats; low: near miss"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Describes a number of each token that a curve can show.

    Attributes:
        name: As users read it.
        raw, final: Columns of the transcript: under the model itself, and in the distribution that was drawn
            from; the same where there is but one.
        bounds: Least values of heights 1 to 7.
        scale: The bounds in words.
        sign: −1 where the curve shows the column's negative.
        lowest: True where the least value of a cell stands out.
        whole: True for counts; −1 is then unknown.
    """

    name: str
    raw: Column
    final: Column
    bounds: tuple[float, ...]
    scale: str
    sign: int = 1
    lowest: bool = False
    whole: bool = False


QUANTITIES = {
    each.name: each
    for each in (
        Quantity("surprise", "raw_logp", "final_logp", _NATS, "−log p, one nat a step", -1),
        Quantity("entropy", "entropy", "entropy", _NATS, "one nat a step"),
        Quantity("kept", "candidate_count", "candidate_count", _COUNTS, _COUNT_SCALE, whole=True),
        Quantity("margin", "margin", "margin", _MARGINS, _MARGIN_SCALE, lowest=True),
    )
}
"""By name, in the order in which a key shows them."""
OFF = "off"
"""Name of no curve."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Holds the cells of a curve, from the first token to the last.

    Attributes:
        size: Tokens of a cell; the last may have fewer.
        tokens: Position of the token that gives each cell its height.
        values: Its number, NaN where that of no token of the cell is known.
        heights: 0 to 7, or `UNKNOWN`.
        ticks: Cells before which a tick stands, in order: a parameter was turned at one of their tokens.
    """

    size: int = 1
    tokens: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    heights: tuple[int, ...] = ()
    ticks: tuple[int, ...] = ()

    def cell_of(self, token: int) -> int:
        """Finds the cell of a token; the last one for tokens that are not in it yet."""
        return min(token // self.size, len(self.tokens) - 1)

    def column_of(self, cell: int) -> int:
        """Finds the column of a cell, with the ticks before it."""
        return cell + sum(tick <= cell for tick in self.ticks)

    def cell_at(self, column: int) -> int | None:
        """Finds the cell in a column, or behind the tick in it; None right of the last one."""
        for cell in range(max(column - len(self.ticks), 0), len(self.tokens)):
            at = self.column_of(cell)
            if at == column or (at == column + 1 and cell in self.ticks):
                return cell
        return None

    @property
    def width(self) -> int:
        """Columns of all cells and ticks."""
        return len(self.tokens) + len(self.ticks)


def divide(values: Floats, turned: Sequence[int], quantity: Quantity, width: int) -> Cells:
    """Divides the values into as many cells as fit beside their ticks.

    Args:
        values: float32 `[n]`; NaN where unknown.
        turned: Tokens from which a parameter had another value.
        quantity: Their meaning.
        width: Columns for cells and ticks; with ticks at least two.
    """
    import numpy as np

    n = len(values)
    if not n or width < 1:
        return Cells()
    size = -(-n // width)
    while (count := -(-n // size)) + len(ticks := _ticks(turned, n, size)) > width and size < n:
        size = max(size + 1, -(-n // max(width - len(ticks), width // 2, 1)))
    # What stands out has the greatest number here; unknown ones and the room behind the last have the least.
    sought = np.full(count * size, -np.inf, np.float32)
    sought[:n] = np.nan_to_num(-values if quantity.lowest else values, nan=-np.inf)
    tokens = sought.reshape(count, size).argmax(1) + np.arange(count) * size
    chosen = values[tokens]
    heights = np.where(np.isnan(chosen), UNKNOWN, np.searchsorted(quantity.bounds, chosen, "right"))
    return Cells(size, tuple(tokens.tolist()), tuple(chosen.tolist()), tuple(heights.tolist()), ticks)


def _ticks(turned: Sequence[int], n: int, size: int) -> tuple[int, ...]:
    return tuple(sorted({token // size for token in turned if 0 <= token < n}))


class CurveValues:
    """Reads one number of each token of a transcript's path, and only those that are new.

    Args:
        transcript: It may grow, and its path may change.
        quantity: The number.
        final: True reads it from the distribution that was drawn from.
    """

    def __init__(self, transcript: Transcript, quantity: Quantity, final: bool) -> None:
        self.transcript, self.quantity = transcript, quantity
        self._column = quantity.final if final else quantity.raw
        self._revision = transcript.revision
        self._values: Floats | None = None

    def read(self) -> Floats:
        """Returns the numbers of the whole path: float32 `[n]`, NaN where unknown."""
        import numpy as np

        transcript = self.transcript
        known = self._values if self._values is not None else np.empty(0, np.float32)
        known = known[: transcript.unchanged_since(self._revision)]
        self._revision = transcript.revision
        fresh = transcript.column(self._column, len(known)).astype(np.float32) * self.quantity.sign
        if self.quantity.whole:
            fresh[fresh < 0] = np.nan
        self._values = np.concatenate([known, fresh]) if len(fresh) else known
        return self._values

    def value(self, token: int) -> float:
        """Returns the number of one token that was read; NaN where it is unknown."""
        read = self._values
        return nan if read is None or token >= len(read) else float(read[token])
