"""Diverse beam search decodes groups of beams in turn, each away from what those before it chose.

Vijayakumar et al. (arXiv 1610.02424). B beams are split into G groups, and each group is a beam search of its
own. At each step a group's log-probabilities are lowered by `λ · count`, where count is how many beams of
earlier groups have chosen the token at this step (Hamming diversity); the sums keep the difference. A group
that has ended chooses nothing. The answer is the best hypothesis of all groups.

Defaults: one beam a group, λ = 0.5, which the authors find best and robust. `num_beams` that is no multiple
of the groups is rounded up to one.

This is `_group_beam_search` of transformers 4.55.4, answer for answer and score for score; transformers 5
has none. A group's search ends by the best continuation of the step, one that ends included. Differences: it
lets a group that has ended choose padding, penalises repetition after diversity, and with `early_stopping`
on leaves live beams out of a group that fills up at the greatest length.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Choice,
    Env,
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
from edge_tui.decoders.beam import (
    DEAD,
    EARLY_STOPPING,
    LENGTH_PENALTY,
    NUM_BEAMS,
    ON,
    Beam,
    Continuations,
    continuation_count,
)
from edge_tui.decoders.penalties import penalties

GROUPS = Param(
    "num_beam_groups",
    default=4,
    low=1,
    high=16,
    step=1,
    integer=True,
    live=False,
    label="groups",
    help="Groups of beams, each away from those before it; beams are rounded up to a multiple.",
)
DIVERSITY = Param(
    "diversity_penalty",
    default=0.5,
    low=0.0,
    high=10.0,
    step=0.1,
    neutral=0.0,
    label="diversity",
    help="Higher keeps a group from tokens that earlier groups chose at the same step (nats a beam).",
)
_OF_A_GROUP = ("eos", "length", "max_length", "score", "finished", "improvable")


class DiverseBeam(Beam):
    """Searches with groups of rows; records what beam search does, `over` once all groups have ended."""

    name = "diverse_beam"
    title = "diverse beam"
    summary = "Searches with groups of beams that keep away from one another."
    rank = 62

    def __init__(self) -> None:
        params = (NUM_BEAMS, GROUPS, DIVERSITY, LENGTH_PENALTY, EARLY_STOPPING)
        super(Beam, self).__init__(penalties(), params=params)

    def group_size(self, values: Mapping[str, float]) -> int:
        """Gives the beams of a group."""
        beams, groups = (int(values.get(param.name, param.default)) for param in (NUM_BEAMS, GROUPS))
        return -(-beams // groups)

    def rows(self, values: Mapping[str, float]) -> int:
        """Gives the beams of all groups."""
        return self.group_size(values) * int(values.get(GROUPS.name, GROUPS.default))

    def init(self, env: Env) -> State:
        """Does `Beam.init` for each group; of `group` the width alone is read, the beams of one."""
        import torch

        state, size = super().init(env), self.group_size(env.values)
        state["score"][::size] = 0
        state["group"] = torch.zeros(env.rows, size, device=env.device)
        return state

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Lets one group after the other search."""
        import torch

        z = last_logits(outs["model"], s)
        logp = self.apply_chains(rows.log_softmax(z), s, p, rng)
        size, said = s["group"].shape[1], torch.zeros_like(logp[0])
        parts = []
        for first in range(0, len(z), size):
            group = {name: s[name][first : first + size] for name in _OF_A_GROUP}
            going = group["improvable"] & ~self.is_full(group, p)
            lowered = logp[first : first + size] - p["diversity_penalty"][0] * said
            found = _continue(lowered, group)
            live, extras = self.compete(found, group, p)
            chosen, row = found.token[live], found.row[live]
            said = said.index_add(0, chosen, going.float())
            extras["score"] = extras["score"].masked_fill(~going, DEAD)
            extras["finished_parent"] += first * (extras["finished_parent"] >= 0)
            parts.append({"chosen": chosen, "origin": row + first, "final": lowered[row], **extras})
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        chosen, origin, final = (whole.pop(name) for name in ("chosen", "origin", "final"))
        whole["over"] = whole["over"].amin().expand(len(z))
        self.reorder(s, origin)
        self.take(chosen, final, z.index_select(0, origin), s, p, rng)
        return Step(chosen, final, parent=origin, done=whole["over"] > 0, extras=whole)

    def front(self, found: Continuations, s: State) -> Tensor:
        """Gives the score `[1]` that decides whether a better answer can still come."""
        return found.score[:1]

    def is_full(self, s: State, p: Params) -> Tensor:
        """Tells whether as many hypotheses have finished as a group has beams and that is enough."""
        return (s["finished"] > DEAD).all() & (p["early_stopping"][0] == ON)

    def ranked(self, records: Records) -> list[Choice]:
        """Lists the best hypotheses, from each group as many as it has beams."""
        if not records.tokens:
            return []
        size, left = self.group_size(records.values), dict[int, int]()
        ranked = []
        for row, choice in self.hypotheses(records):
            left[row // size] = left.get(row // size, size) - 1
            if left[row // size] >= 0:
                ranked.append(choice)
        return ranked


def _continue(logp: Tensor, s: State) -> Continuations:
    """Lists the best continuations of one group."""
    vocab = logp.shape[-1]
    totals, flat = best((s["score"][:, None] + logp).view(1, -1), continuation_count(s, vocab))
    return Continuations(totals[0], flat[0] // vocab, flat[0] % vocab)
