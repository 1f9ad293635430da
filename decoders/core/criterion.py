"""Describes the numbers by which stages decide on tokens, in their own units, and cuts: where tokens go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edge_tui.decoders.core.rows import entropy, greatest, log_softmax

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Edge:
    """Describes a filter's cut: candidates are put in order of a key, and all beyond an edge go.

    The edge is the smallest key with which the candidates up to it weigh what a parameter asks for. Those
    whose keys are equal stay or go together. What `apply` does remains the definition; this says the same
    so that the whole step can be one fused operation where there is one.

    Attributes:
        key: "depth", the distance of a logit from the best one, `max z − z`; or "surprise", the distance of a
            token's surprise from the entropy, `|−log p − H|`.
        weight: The summand: "count", 1 for each candidate, or "mass", its probability among those that
            earlier filters left. None adds nothing up: the edge is `−log` of the parameter.
        param: Name of the parameter. At its neutral value everything stays.
    """

    key: Literal["depth", "surprise"]
    weight: Literal["count", "mass"] | None
    param: str


@dataclass(frozen=True, slots=True)
class Criterion:
    """Holds the numbers by which a stage decides on tokens, and where it cuts if it does.

    Attributes:
        label: Names the number: "p", "rank", "Σp", "T".
        values: float32 `[R, V]`, the number of each token.
        bound: float32 `[R, 1]`, where the cut lies: the last number that stays, or may; None without a cut.
        is_most: True where numbers up to the bound stay, False where those from it on do.
    """

    label: str
    values: Tensor
    bound: Tensor | None = None
    is_most: bool = False

    def cut(self, z: Tensor) -> Tensor:
        """Removes the tokens of logits `[R, V]` whose numbers lie beyond the bound."""
        import torch

        assert self.bound is not None, "a criterion without a bound cuts nothing"
        beyond = self.values > self.bound if self.is_most else self.values < self.bound
        return z.masked_fill(beyond, -torch.inf)


def of_edge(z: Tensor, edge: Edge, value: Tensor) -> Criterion:
    """Computes the numbers of a cut that an `Edge` declares.

    By rank, by the sum of probabilities down to a token, by the distance from the entropy, or by the share of
    the best one's probability, as the edge adds up. Equal keys have one number, the sum of all of them.

    Args:
        z: float32 `[R, V]`; −inf means removed.
        edge: The declaration.
        value: float32 `[R, 1]`, its parameter.
    """
    import torch

    logp = log_softmax(z)
    prob, left = logp.exp(), z > -torch.inf
    if edge.key == "surprise":
        key, label = (-logp - entropy(prob)).abs(), "|s−H|"
    else:
        key, label = greatest(z) - z, "p/p₁"
    if edge.weight is None:
        share = Criterion(label, (-key).exp(), value)
        return share if edge.key == "depth" else Criterion(label, key, -value.log(), is_most=True)
    weight = left.float() if edge.weight == "count" else prob
    keys, order = key.sort(-1)
    sums = weight.gather(-1, order).cumsum(-1)
    place = (sums < value.minimum(sums[:, -1:])).sum(-1, keepdim=True)
    last = keys.gather(-1, place)
    if edge.key == "surprise":
        return Criterion(label, key, last, is_most=True)
    reached = (torch.searchsorted(keys, key, right=True) - 1).clamp(min=0)
    own = sums.gather(-1, reached)
    bound = sums.gather(-1, (torch.searchsorted(keys, last, right=True) - 1).clamp(min=0))
    return Criterion("rank" if edge.weight == "count" else "Σp", own, bound, is_most=True)
