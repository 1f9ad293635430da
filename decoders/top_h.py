"""Top-H sampling (Potraghloo et al., arXiv 2509.02510) keeps the likeliest tokens up to a share of entropy.

Of the 100 likeliest tokens, renormalised, keeps the longest prefix with `Σ −p_i log p_i ≤ h · H`, at least
one token. Default h = 0.4, the paper's; 1 keeps everything. Reference: transformers' `TopHLogitsWarper`; it
keeps 100 tokens at 1 and breaks ties at the edge by sort order, while here they stay together. The paper
knows no 100, and renormalises a prefix before it takes its entropy.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, best, rows


class TopH(Filter):
    """Removes the tokens beyond a share of the entropy."""

    name = "top_h"
    title = "top-H"
    summary = "Draws from the likeliest tokens that hold a share h of the entropy."
    rank = 21
    params = (
        Param.share(
            "top_h", 0.4, "Share of the entropy that stays; 1 keeps all.", low_open=True, neutral=1.0
        ),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks logits below the last one whose sum stays within h · H; h = 1 masks none."""
        import torch

        h, (values, prob, terms) = p["top_h"], likeliest(z)
        kept = rows.reach(terms, h).minimum((prob > 0).sum(-1, keepdim=True))
        last = (kept - 1).clamp(min=0)
        return z.masked_fill((z < values.gather(-1, last)) & (h < 1), -torch.inf)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Gives the share of the entropy down to each token, +inf beyond the 100."""
        import torch

        values, _, terms = likeliest(z)
        share = (terms.cumsum(-1) / terms.sum(-1, keepdim=True)).nan_to_num(0.0)
        share = torch.nn.functional.pad(share, (0, 1), value=torch.inf)
        place = torch.searchsorted(-values, -z, right=True) - 1
        place = place.masked_fill(z < values[:, -1:], values.shape[-1])
        return Criterion("ΣH", share.gather(-1, place), p["top_h"], is_most=True)


def likeliest(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Selects the 100 greatest logits; their probabilities, renormalised, and `−p log p` of each."""
    import torch

    values = best(z, min(100, z.shape[-1]))[0]
    prob = values.softmax(-1)
    return values, prob, -torch.xlogy(prob, prob)
