"""Lists the fields of a token's record once: name, type, shape, empty value, and their name in JSON lines.

`TokenBatch` (engine/token_batch.py) has one attribute for each field. The transcript's table, the history's
chunks and exports, the wire between two edge-tui and `edge-tui run --json` take their columns from here, in
this order. Importing this loads no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Literal

from edge_tui.decoders.core.step_log import KEPT as KEPT
from edge_tui.decoders.core.step_log import OWN as OWN
from edge_tui.decoders.core.step_log import UNKNOWN as UNKNOWN

TOP = 20
"""Number of alternatives that are recorded for each token."""

Kind = Literal["position", "number", "alternatives", "extras", "candidates"]
"""A field's shape and its owner.

"position": one number, the token's place among steps and rows; the transcript keeps it as a tree.
"number": one number that says something about the token.
"alternatives": `TOP` numbers, best alternative first.
"extras": one number for each column of the strategy (`Started.columns`).
"candidates": the extras of each alternative, by column and distribution; absent where the strategy has none.
"""


@dataclass(frozen=True, slots=True)
class TokenField:
    """Describes one column of a `TokenBatch`.

    Attributes:
        name: Of the attribute, of the key on the wire and of the transcript's column.
        dtype: "i4" (int32) or "f4" (float32).
        kind: Shape and owner.
        empty: Stands in unused slots and for numbers that are not known; JSON's null is read as this.
        json_line: Key in `edge-tui run --json`; "" where the lines do not have it.
        added: True where records of older versions lack it; they are read as `empty`.
        stored: Type in a transcript's table, where a smaller one will do.
    """

    name: str
    dtype: Literal["i4", "f4"]
    kind: Kind
    empty: float
    json_line: str = ""
    added: bool = False
    stored: str = ""

    def shape(self, extras: int) -> tuple[int, ...]:
        """Gives the shape of one record's entry, for a strategy with so many columns."""
        shapes: dict[Kind, tuple[int, ...]] = {
            "alternatives": (TOP,),
            "extras": (extras,),
            "candidates": (extras, 2, TOP),
        }
        return shapes.get(self.kind, ())


TOKEN_FIELDS = (
    TokenField("step", "i4", "position", 0, "step"),
    TokenField("row", "i4", "position", 0, "row"),
    TokenField("parent", "i4", "position", 0, "parent"),
    TokenField("id", "i4", "number", -1, "id"),
    TokenField("raw_logp", "f4", "number", nan, "logp"),
    TokenField("final_logp", "f4", "number", nan, "final_logp"),
    TokenField("rank", "i4", "number", -1, "rank"),
    TokenField("entropy", "f4", "number", nan, "entropy"),
    # Best sum of a logit and its luck less the second; where no luck decides, of the logits alone.
    TokenField("margin", "f4", "number", nan, "margin", added=True),
    TokenField("candidate_count", "i4", "number", -1, "candidate_count", added=True),
    TokenField("version", "i4", "number", 0),
    TokenField("top_ids", "i4", "alternatives", -1),
    TokenField("top_logp", "f4", "alternatives", -inf),
    TokenField("final_ids", "i4", "alternatives", -1),
    TokenField("final_top_logp", "f4", "alternatives", -inf),
    # Of `top_ids`: the number of the link that removed each, those before the strategy's own part first and
    # those after it next; or `KEPT`, `OWN` or `UNKNOWN`.
    TokenField("removing_stage", "i4", "alternatives", UNKNOWN, added=True, stored="i1"),
    TokenField("extras", "f4", "extras", nan),
    # A removed candidate scores −inf, which is null in JSON.
    TokenField("candidates", "f4", "candidates", -inf),
)

RESERVED = frozenset(
    {
        *(name for field in TOKEN_FIELDS for name in (field.name, field.json_line) if name),
        *("type", "text", "top", "final_top"),  # of `edge-tui run --json`
        *("index", "logprob", "final_logprob", "alternatives"),  # of `/infer/stream`
    }
)
"""Names that no column of a strategy may have: JSON has them beside its columns."""


def token_fields(*kinds: Kind, dtype: str = "") -> tuple[TokenField, ...]:
    """Selects fields by kind and, if given, by type, in the order of the table."""
    return tuple(
        field for field in TOKEN_FIELDS if field.kind in kinds and (not dtype or field.dtype == dtype)
    )
