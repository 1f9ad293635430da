"""Contrastive search takes likely tokens whose hidden state says something new (Su et al., arXiv 2202.06417).

Of the k likeliest tokens it takes the one with the greatest `(1 − α) · p − α · s`, where s is the greatest
cosine between the token's hidden state (last layer, after the final norm) and those of all positions before.
α = 0.6, k = 4; α = 0 or k = 1 is greedy. Reference: transformers 4.55.4,
`generate(penalty_alpha=0.6, top_k=4)`, token for token.

The candidates of a place are the rows: a step reads all k at once, finds the winner, lets every row go on
from it, and proposes the next k. So a token is decided one step after it was proposed, and the last proposals
of a run count for nothing. Penalties and filters act on the logits that p and the candidates come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan

from edge_tui.decoders.base import (
    Choice,
    Column,
    Decoder,
    Env,
    Needs,
    Output,
    Param,
    Params,
    Records,
    Rng,
    State,
    Step,
    Tensor,
    best,
    last_logits,
    rows,
)
from edge_tui.decoders.penalties import penalties

ALPHA = Param.share("penalty_alpha", 0.6, "Higher avoids saying again what was said; 0 is greedy.")
CANDIDATES = Param(
    "num_candidates",
    default=4,
    low=1,
    high=16,
    step=1,
    integer=True,
    live=False,
    label="candidates",
    help="How many of the likeliest tokens are weighed.",
)


class ContrastiveSearch(Decoder):
    """Weighs k candidates by their probability and by how much their hidden states repeat.

    Each row records of the token that it proposed a step before, which has now been weighed, `similarity`, s,
    and `objective`, what is maximised; NaN in the first step.
    """

    name = "contrastive_search"
    title = "contrastive search"
    summary = "Prefers likely tokens that say something new."
    columns = (
        Column("similarity", "Greatest cosine between its hidden state and one before.", low=-1.0, high=1.0),
        Column("objective", "(1 − α) · p − α · similarity, which is maximised."),
    )
    owns_eos = True
    lag = 1
    needs = Needs(hidden=(-1,), past=True)

    def __init__(self) -> None:
        super().__init__(penalties(), params=(ALPHA, CANDIDATES))

    def rows(self, values: Mapping[str, float]) -> int:
        """Gives k."""
        return int(values.get("num_candidates", CANDIDATES.default))

    def init(self, env: Env) -> State:
        """Allocates the chains' state, the tokens proposed last (−1 for none) and their log-probabilities."""
        import torch

        state = super().init(env)
        state["proposed"] = torch.full((env.rows,), -1, dtype=torch.int64, device=env.device)
        state["logp"] = torch.zeros(env.rows, device=env.device)
        state["eos"] = env.eos.expand(env.rows, -1).contiguous()
        return state

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Takes the best candidate that was read, and proposes the likeliest tokens after it."""
        raw = last_logits(outs["model"], s)
        parent, over, extras = weigh(outs["model"], s, p)
        final = self.after.apply(self.before.apply(raw, p, s, rng), p, s, rng)[parent]
        chosen = propose(final[:1], s)
        self.reorder(s, parent)
        self.take(chosen, final, raw[parent], s, p, rng)
        return Step(chosen, final, parent, done=over, extras=extras)

    def finish(self, records: Records) -> Choice | None:
        """Follows the winners; the answer's score is their mean objective."""
        if not records.tokens:
            return None
        winners = [row[0] for row in records.parents]
        scores = [records.extras["objective"][step][winners[step]] for step in range(1, len(winners))]
        tokens = records.path(len(winners) - 2, winners[-1])
        return Choice(tokens, sum(scores) / max(len(scores), 1))


def weigh(out: Output, s: State, p: Params) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Weighs the candidates that were read.

    Returns:
        The winner as the parent of each row, int64 `[R]`; whether it ends the text, bool `[R]`; the columns.
    """
    alpha, similarity, first = p["penalty_alpha"][:, 0], repeats(out), s["proposed"] < 0
    objective = (1 - alpha) * s["logp"].exp() - alpha * similarity
    objective = objective.masked_fill(s["logp"] == -inf, -inf).masked_fill(first, 0.0)
    parent = objective.argmax(0, keepdim=True).expand_as(s["proposed"])
    over = (s["proposed"][parent, None] == s["eos"]).any(-1)
    numbers = {"similarity": similarity, "objective": objective}
    return parent, over, {name: column.masked_fill(first, nan) for name, column in numbers.items()}


def propose(final: Tensor, s: State) -> Tensor:
    """Proposes the likeliest tokens, int64 `[R]`, and keeps them in the state.

    Args:
        final: float32 `[1, V]`, the winner's logits.
        s: The state.
    """
    from torch.nn.functional import pad

    count = len(s["proposed"])
    top, ids = best(final, min(count, final.shape[-1]))
    logp = top - rows.log_sum_exp(final)
    missing = count - ids.shape[-1]  # of a vocabulary with fewer tokens than rows
    s["logp"].copy_(pad(logp[0], (0, missing), value=-inf))
    s["proposed"].copy_(pad(ids[0], (0, missing)))
    return s["proposed"].clone()


def repeats(out: Output) -> Tensor:
    """Computes the greatest cosine of each row's newest hidden state with those before, float32 `[R]`.

    Rows share all positions but the newest. Without a position before it is −1.
    """
    import torch

    assert out.hidden is not None, "the needs name them"
    assert out.past is not None
    assert out.past_length is not None
    newest, past = out.hidden[:, -1, 0].float(), out.past[0].float()
    before = torch.arange(len(past), device=past.device) < out.past_length[0] - 1
    sizes: Tensor = newest.norm(dim=-1, keepdim=True) * past.norm(dim=-1)
    cosine = newest @ past.T / sizes
    return cosine.masked_fill(~before, -1.0).amax(-1)
