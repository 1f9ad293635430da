"""Defines the result of a model's forward, as strategies read it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING

from edge_tui.decoders.core import rows
from edge_tui.decoders.core.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.stage import State


@dataclass(frozen=True, slots=True)
class Output:
    """Holds the result of a model's forward; what `Needs` does not declare is None.

    Attributes:
        logits: float `[R, K, V]` in the model's own precision or float32.
        hidden: float `[R, K, len, D]` in the model's precision, hidden states of the layers `Needs.hidden`,
            as transformers' `output_hidden_states` has them.
        early: float `[R, K, len, V]`, early-exit logits of the layers `Needs.early`: the head's product with
            their hidden states, scaled and capped as `logits` are.
        past: float `[R, N, D]` in the model's precision, the last layer's hidden states of each row, after
            the final norm; `N` is fixed for a run.
        past_length: int64 `[R]`, how many of those `N` positions are there, the newest `K` among them; what
            lies beyond is any number.
    """

    logits: Tensor
    hidden: Tensor | None = None
    early: Tensor | None = None
    past: Tensor | None = None
    past_length: Tensor | None = None

    def last(self) -> Output:
        """Returns the last position alone."""
        last = {name: getattr(self, name) for name in ("logits", "hidden", "early")}
        return replace(self, **{name: t[:, -1:] for name, t in last.items() if t is not None})

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors that are there, by the names of their fields."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def last_logits(out: Output, s: State) -> Tensor:
    """Returns float32 `[R, V]`: logits of the last position, cut to the vocabulary of the state.

    Embeddings may be padded beyond the tokenizer's vocabulary, and by different amounts in two models of
    one family; `Env.vocab` is the width that counts.
    """
    return out.logits[:, -1, : s["output_counts"].shape[-1]].float()


def difference(z: Tensor, other: Tensor) -> Tensor:
    """Subtracts the logits of two streams; where either removed a token, it gives what their best differ by.

    A removed token is no evidence for or against it in the other stream. So the result is finite where logits
    are; added to `z` it leaves removed what is removed there.

    Args:
        z: float32 `[R, V]`.
        other: float32 `[R, V]`.

    Returns:
        float32 `[R, V]`; 0 for a removed token of a row that has no best.
    """
    of_best = rows.greatest(z) - rows.greatest(other)
    return (z - other).where((z > -inf) & (other > -inf), of_best.nan_to_num(0.0, 0.0, 0.0))


def of_guidance(z: Tensor, other: Tensor, weight: Tensor) -> Criterion:
    """Computes what guidance adds to the log-probability of each token (nats), before all sum to 1 again.

    Args:
        z: float32 `[R, V]`, logits that it leads towards.
        other: float32 `[R, V]`, logits that it leads away from.
        weight: float32 `[R, 1]`, factor of the difference of their log-probabilities.
    """
    return Criterion("Δ log p", weight * difference(z.log_softmax(-1), other.log_softmax(-1)))
