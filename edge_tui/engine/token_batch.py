"""Defines the records of tokens as an engine reports them: columns of numpy, and texts.

Importing it loads no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.engine.token_fields import TOKEN_FIELDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int32]
    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Holds `n` consecutive records of one run, in order of (step, row). One record is one token of one row.

    `TOKEN_FIELDS` lists the columns with their types and shapes.

    Attributes:
        run: The run's id.
        step: int32 `[n]`, 0 for the first new token. A continued run starts at its prefix's length.
        row: int32 `[n]`.
        parent: int32 `[n]`, the row of the previous step that this token continues (beams); else `row`.
        id: int32 `[n]`, token ids.
        raw_logp: float32 `[n]`, log-probability under the model itself (nats).
        final_logp: float32 `[n]`, log-probability in the distribution that was drawn from.
        rank: int32 `[n]`, 0 = the model's most likely token.
        entropy: float32 `[n]`, of the model's distribution (nats).
        margin: float32 `[n]`, the best sum of a logit and its luck less the second (nats); +inf where one
            token was left. Where no luck decides, of the logits alone. NaN where it has no meaning (beams).
        candidate_count: int32 `[n]`, tokens that the stages left; −1 where it is not known.
        version: int32 `[n]`, version of the parameter table that the step used.
        top_ids, top_logp: int32/float32 `[n, TOP]`, most likely tokens under the model, best first.
            Unused slots hold id −1.
        final_ids, final_top_logp: the same of the final distribution.
        removing_stage: int32 `[n, TOP]`, the link that removed each of `top_ids`, by its number among the
            links before the strategy and those after it; else `KEPT`, `OWN` (the strategy) or `UNKNOWN`.
        extras: float32 `[n, E]`, the strategy's own columns, named in `Started.columns`.
        candidates: float32 `[n, E, 2, TOP]`, the same numbers for the alternatives: those of `top_ids`, then
            those of `final_ids`; unused slots hold any number. None where the strategy has none for them.
        text: `n` strings. Their concatenation along a row's path is its text; a token that leaves a
            character incomplete has "", the token that completes it has the whole character.
    """

    run: int
    step: Ints
    row: Ints
    parent: Ints
    id: Ints
    raw_logp: Floats
    final_logp: Floats
    rank: Ints
    entropy: Floats
    version: Ints
    top_ids: Ints
    top_logp: Floats
    final_ids: Ints
    final_top_logp: Floats
    extras: Floats
    text: tuple[str, ...]
    candidates: Floats | None = None
    margin: Floats = None  # type: ignore[assignment]  # what is not given is not known
    candidate_count: Ints = None  # type: ignore[assignment]
    removing_stage: Ints = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for each in TOKEN_FIELDS:
            if each.added and getattr(self, each.name) is None:
                import numpy as np

                unknown = np.full((len(self), *each.shape(0)), each.empty, each.dtype)
                object.__setattr__(self, each.name, unknown)

    def __len__(self) -> int:
        return len(self.text)
