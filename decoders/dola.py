"""DoLa prefers what the last layer says and an early layer does not (Chuang et al., arXiv 2309.03883).

`score = log p_N − log p_j` for tokens with `p_N ≥ α · max p_N` (`relative_top`), −inf for others; the token
is drawn from the softmax of the score over the temperature. Of the candidate layers, j is the one whose
distribution differs most from the last one's, by `½ (KL(m ‖ p_N) + KL(m ‖ p_j))` with `m = ½ (p_N + p_j)`.
That is the authors' code and transformers'; the Jensen-Shannon divergence of the paper has KL's arguments the
other way round.

Candidates are every second layer of the lower or of the higher half, in models of more than 40 layers of the
first or last 20. Where the head is the embedding, the low ones begin at layer 2: the embedding itself only
says the token that was read. `early_head` says how a layer becomes logits: `bare` multiplies by the head, as
the authors and transformers do; `normed` applies the final norm before, as the last layer has it.

Defaults: low layers, bare, α = 0.1, temperature 1. The paper takes the high half for short answers, and a
repetition penalty of 1.2; penalties act on the last layer's logits here, before the contrast. Reference:
transformers 4.55.4, `generate(dola_layers="low" | "high")`, logit for logit without penalties.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Criterion,
    Decoder,
    Needs,
    Output,
    Param,
    Params,
    Rng,
    State,
    Tensor,
    argmax,
    difference,
    last_logits,
    rows,
)
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import Temperature

LAYERS = Param.choice("dola_layers", ("low", "high"), "Half of the layers to contrast with.", live=False)
HEAD = Param.choice(
    "early_head",
    ("bare", "normed"),
    "How an early layer becomes logits: by the head alone (bare), or after the final norm.",
    live=False,
)
RELATIVE_TOP = Param.share(
    "relative_top", 0.1, "Least probability of a token, relative to the best; 1 is greedy.", low_open=True
)


class Dola(Decoder):
    """Contrasts the last layer with the early one that differs most."""

    name = "dola"
    title = "DoLa"
    summary = "Prefers what the last layer says and an early one does not."

    def __init__(self) -> None:
        super().__init__(penalties(), (Temperature(),), (LAYERS, HEAD, RELATIVE_TOP))

    def needs_of(self, values: Mapping[str, float], layers: int, tied: bool) -> Needs:
        """Names the candidate layers, at least one."""
        first = min(2, layers // 2) if tied else 0
        low = range(first, max(min(layers // 2, 20), first + 1), 2)
        high = range(max(layers // 2, layers - 20), layers, 2)
        early = high if values["dola_layers"] else low
        return Needs(early=tuple(early), early_norm=values["early_head"] > 0)

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion:
        """Compares probabilities of the last layer, relative to its best, with `relative_top`."""
        z = self.before.apply(last_logits(outs["model"], s), p, s, rng)
        return Criterion("p/p₁", (z - rows.greatest(z)).exp(), p["relative_top"])

    def logits(self, outs: Mapping[str, Output], s: State, p: Params) -> Tensor:
        """Subtracts the log-probabilities of the layer that differs most, within the plausible tokens."""
        import torch

        out = outs["model"]
        assert out.early is not None, "needs_of names layers"
        z = last_logits(out, s)[:, None]
        logp = rows.log_softmax(torch.cat((z, out.early[:, -1, :, : z.shape[-1]].float()), 1))
        last, early, share = logp[:, :1], logp[:, 1:], logp.exp()
        mean, both = (share[:, :1] + share[:, 1:]) / 2, last + early
        terms = (2 * torch.xlogy(mean, mean) - mean * both).masked_fill(both == -torch.inf, 0.0)
        layer = argmax(rows.total(terms)[..., 0])[..., None].expand(-1, -1, z.shape[-1])
        outside = last < rows.greatest(last) + p["relative_top"][..., None].log()
        return difference(last, early.gather(1, layer)).masked_fill(outside, -torch.inf)[:, 0]
