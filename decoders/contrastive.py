"""Contrastive decoding prefers tokens that a strong model (expert) finds likelier than a weak one (amateur).

Only tokens that the expert finds plausible compete, `V_head = {x : p_e(x) ≥ α · max p_e}`. Formulas:

* `li2022` (Li et al., arXiv 2210.15097): score `log p_e − λ · log p_a`, `p_a = softmax(z_a / τ_a)`. α =
  0.1, λ = 1, and the authors run it with τ_a = 0.5.
* `obrien2023` (O'Brien & Lewis, arXiv 2309.09117): score `(1 + β) · z_e − β · z_a`. α = 0.1, β = 0.5. Its
  argmax is that of li2022 with λ = β / (1 + β) and τ_a = 1.
* `seed`: `log p_e / (log p_a + 1e-9)` over the expert's ten likeliest tokens. Both logs are negative, so
  this prefers what the expert dislikes and the amateur likes: it is here to be looked at, never the
  default. Its `head_parameter` multiplies the score before an argmax, which changes nothing.

The choice is the argmax, or with `sample` a draw from the softmax of the score over the temperature.
Penalties act on the expert's logits first. The two vocabularies must be one map; padded embeddings are cut
to `Env.vocab`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from edge_tui.decoders.base import (
    Column,
    Criterion,
    Decoder,
    Output,
    Param,
    Params,
    Rng,
    State,
    Step,
    Stream,
    Tensor,
    best,
    difference,
    last_logits,
    rows,
)
from edge_tui.decoders.core.random import draw_and_margin
from edge_tui.decoders.core.step_log import take_best
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import TEMPERATURE, scale

LI2022, OBRIEN2023, SEED = range(3)
SEED_HEAD = 10

PARAMS = (
    Param.choice(
        "formula",
        ("li2022", "obrien2023", "seed"),
        "Published score; seed is there to be looked at: it prefers what the expert dislikes.",
    ),
    Param.share(
        "alpha",
        0.1,
        "Least probability of a plausible token, relative to the expert's best; 1 is greedy.",
        low_open=True,
    ),
    Param(
        "strength",
        default=1.0,
        low=0.0,
        high=5.0,
        neutral=0.0,
        help="λ of li2022: how much the amateur's opinion counts against a token.",
    ),
    Param(
        "amateur_temperature",
        default=0.5,
        low=0.0,
        low_open=True,
        high=5.0,
        neutral=1.0,
        label="amateur temp.",
        help="Of li2022: lower makes the amateur surer, and so contrasts more.",
    ),
    Param(
        "beta",
        default=0.5,
        low=0.0,
        high=5.0,
        neutral=0.0,
        help="β of obrien2023: how much the amateur's opinion counts against a token.",
    ),
    Param.choice("sample", ("off", "on"), "Draw by score among plausible tokens instead of taking the best."),
    TEMPERATURE,
)
HEAD_PARAMETER = Param(
    "head_parameter",
    default=1.0,
    low=-1000.0,
    high=1000.0,
    step=0.1,
    help="Does nothing: under seed it multiplies a score whose argmax is taken. It is not alpha.",
)


class Contrastive(Decoder):
    """Scores tokens by the expert's logits against the amateur's.

    Each token and each alternative records the numbers that its score is made of, after penalties, in nats:
    `expert` and `amateur` are log-probabilities, under li2022 the amateur's at its own temperature, and under
    obrien2023 logits; `score` is what the formula makes of them before any temperature, −inf outside the
    head. Of a token that the amateur removed, `amateur` is as far below the amateur's best as `expert` is
    below the expert's. The final distribution is the softmax of the score over plausible tokens, also when
    its best is taken.
    """

    name = "contrastive"
    title = "contrastive"
    summary = "Prefers what a strong model says and a weak one does not."
    rank = 7
    roles = ("expert", "amateur")
    columns = (
        Column("expert", "What the expert says of the token: log p or, under obrien2023, a logit."),
        Column("amateur", "What the amateur says of it."),
        Column("score", "What the formula makes of both."),
    )

    def __init__(self) -> None:
        before = penalties()
        of_stages = (param for stage in before for param in stage.params)
        super().__init__(before, params=(*PARAMS, *of_stages, HEAD_PARAMETER))

    def draws(self, values: Mapping[str, float]) -> bool:
        return values["sample"] > 0

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Reads the expert as "model", and the amateur."""
        return Stream("model", "expert"), Stream("amateur", "amateur")

    def cut_by(self, values: Mapping[str, float]) -> str:
        """Names the bound of the formula: the seed's rank, else `alpha`."""
        return "rank" if values.get("formula") == SEED else "alpha"

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion:
        """Compares the expert's probabilities, relative to its best, with the bound of the head."""
        expert = self.before.apply(last_logits(outs["model"], s), p, s, rng)
        below, bound = head(expert, p)
        return Criterion("p/p₁", (-below).exp(), (-bound).exp())

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Draws from the scores at the temperature, or takes their argmax where `sample` is 0."""
        raw = last_logits(outs["model"], s)
        expert = self.before.apply(raw, p, s, rng)
        candidates = contrast(expert, last_logits(outs["amateur"], s), p)
        score = candidates["score"]
        tempered = scale(score, p["temperature"])
        sampled = p["sample"] > 0
        final = self.after.apply(tempered.where(sampled, score), p, s, rng)
        chosen, margin = draw_and_margin(final, rng)
        chosen = chosen.where(sampled[:, 0], take_best(final, ~sampled)[:, 0])
        margin = margin.where(sampled[:, 0], inf)  # the log has that of the argmax
        self.take(chosen, final, raw, s, p, rng)
        taken = chosen[:, None]
        extras = {name: column.gather(-1, taken)[:, 0] for name, column in candidates.items()}
        return Step(chosen, final, extras=extras, candidates=candidates, margin=margin)


def contrast(expert: Tensor, amateur: Tensor, p: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Computes the score of each token, −inf outside the head, and the two numbers that it is made of.

    Args:
        expert: float32 `[R, V]` logits.
        amateur: float32 `[R, V]` logits.
        p: `formula`, `alpha`, `strength`, `amateur_temperature`, `beta`, each float32 `[R, 1]`.

    Returns:
        `expert`, `amateur` and `score`, float32 `[R, V]` each.
    """
    import torch

    is_li, is_obrien = p["formula"] == LI2022, p["formula"] == OBRIEN2023
    tempered = amateur / p["amateur_temperature"].where(is_li, 1.0)
    strong = expert.where(is_obrien, rows.log_softmax(expert))
    weak = amateur.where(is_obrien, rows.log_softmax(tempered))
    weak = weak.where(weak > -torch.inf, strong - difference(strong, weak))
    li = strong - p["strength"] * weak
    obrien = (1 + p["beta"]) * strong - p["beta"] * weak
    below, bound = head(expert, p)
    score = li.where(is_li, obrien.where(is_obrien, strong / (weak + 1e-9)))
    return {"expert": strong, "amateur": weak, "score": score.masked_fill(below > bound, -torch.inf)}


def head(expert: Tensor, p: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Measures how far logits lie below the best one, float32 `[R, V]`, and gives the bound `[R, 1]` of that.

    It is `−log α`, and for the seed the distance of the tenth token.
    """
    import torch

    below = rows.greatest(expert) - expert
    nearest = best(-below, min(SEED_HEAD, below.shape[-1]))[0]
    tenth = -nearest.masked_fill(nearest == -torch.inf, 0.0).amin(-1, keepdim=True)
    return below, (-p["alpha"].log()).where(p["formula"] != SEED, tenth)
