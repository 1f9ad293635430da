"""Beam search keeps the B likeliest beginnings and lets their continuations compete.

Each step looks at the `max(2, 1 + E)·B` best continuations of all beams by `Σ log p` (`E` end-of-sequence
ids), so that B of them go on even if many end. One that ends is *finished* only if it ranks among the best
B; its score is `Σ log p / length^length_penalty`, where length counts generated tokens, the ending one too,
and the prompt's not. The B best finished ones are kept. The search ends by `early_stopping`:

* off: when the best live beam, scored at its present length, is no better than the worst finished one;
* on: when B are finished;
* never: like off, but with a length penalty above 0 the live beam is scored at the greatest length it could
  reach, which is what makes the bound a true one.

At the greatest length every live candidate counts as finished. Penalties act on log-probabilities. One beam
is greedy search: it stops at its first end, and penalties act on its logits, whose sign the repetition
penalty asks for. All of this is transformers' `generate(num_beams=B)` (5.23, `_beam_search`, and
`do_sample=False` for one beam), sequence for sequence and score for score. (vLLM differs: it divides by
prompt + output length.)
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import ClassVar, NamedTuple

from edge_tui.decoders.base import (
    Choice,
    Column,
    Decoder,
    Env,
    Output,
    Param,
    Params,
    Records,
    Rng,
    State,
    Step,
    Tensor,
    argmax,
    best,
    last_logits,
    rows,
)
from edge_tui.decoders.penalties import penalties

NUM_BEAMS = Param(
    "num_beams",
    default=4,
    low=1,
    high=16,
    step=1,
    integer=True,
    live=False,
    label="beams",
    help="Number of hypotheses that are kept alive.",
)
LENGTH_PENALTY = Param(
    "length_penalty",
    default=1.0,
    low=-5.0,
    high=5.0,
    step=0.1,
    neutral=0.0,
    help="Higher favours longer answers: a score is divided by its length to this power.",
)
EARLY_STOPPING = Param.choice(
    "early_stopping",
    ("off", "on", "never"),
    "Stop once better is unlikely (off), enough have finished (on), or better cannot come (never).",
)
ON, NEVER = 1, 2
DEAD = -1.0e9
"""Score of the rows that are not alive yet: at first all rows are the same prompt, and one is enough."""


class Continuations(NamedTuple):
    """Holds the continuations that a step looks at, in the order in which they count.

    Attributes:
        score: float32 `[C]`, the sum of each.
        row: int64 `[C]`, the beam that it continues.
        token: int64 `[C]`.
    """

    score: Tensor
    row: Tensor
    token: Tensor


def continuation_count(s: State, vocab: int) -> int:
    """Counts the continuations that a step looks at, so that enough go on whatever ends."""
    beams, ends = s["eos"].shape
    return min(max(2, 1 + ends) * beams, beams * vocab)


class Beam(Decoder):
    """Searches with B rows of one run.

    `finished`, `finished_parent` and `finished_id` are NaN, −1 and −1 where no hypothesis ended. One that did
    has nothing to do with the row it is recorded with, and its last token is never fed to the model. The B
    best of a run are the finished hypotheses of the search.
    """

    name = "beam"
    title = "beam"
    summary = "Keeps the B best hypotheses and returns the best that finishes."
    rank = 2
    columns: ClassVar[tuple[str | Column, ...]] = (
        Column("score", "Σ log p of the hypothesis that ends in this token (nats).", role="sum"),
        Column("finished", "Final score of a hypothesis that ended at this step.", role="score"),
        Column("finished_parent", "Row of the step before that it continues.", role="parent"),
        Column("finished_id", "Its last token.", role="token"),
        Column("over", "End of the search.", ("no", "yes"), role="ended"),
    )
    owns_eos = True

    def __init__(self) -> None:
        super().__init__(penalties(), params=(NUM_BEAMS, LENGTH_PENALTY, EARLY_STOPPING))

    def rows(self, values: Mapping[str, float]) -> int:
        """Gives `num_beams`."""
        return int(values.get("num_beams", NUM_BEAMS.default))

    def init(self, env: Env) -> State:
        """Allocates the chain's counts and, for each row, a live score, a finished score and the length."""
        import torch

        def full(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full((env.rows,), value, dtype=dtype, device=env.device)

        state = super().init(env)
        state["eos"] = env.eos.expand(env.rows, -1).contiguous()
        state["length"] = full(0, torch.int64)
        state["max_length"] = full(env.max_new_tokens, torch.int64)
        state["score"] = full(DEAD)
        state["score"][:1] = 0
        state["finished"] = full(-torch.inf)
        state["improvable"] = full(True, torch.bool)
        return state

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Extends each beam by the best continuations, and sets those aside that end."""
        z = last_logits(outs["model"], s)
        logp, found = self.extend(z, s, p, rng)
        live, extras = self.compete(found, s, p)
        chosen, origin = found.token[live], found.row[live]
        self.reorder(s, origin)
        final = logp.index_select(0, origin)
        self.take(chosen, final, z.index_select(0, origin), s, p, rng)
        return Step(chosen, final, parent=origin, done=extras["over"] > 0, extras=extras)

    def extend(self, z: Tensor, s: State, p: Params, rng: Rng) -> tuple[Tensor, Continuations]:
        """Computes log-probabilities `[R, V]` of logits `[R, V]`, and the best continuations by them."""
        import torch

        vocab = z.shape[-1]
        count = continuation_count(s, vocab)
        if len(z) == 1:
            penalised = self.apply_chains(z, s, p, rng)
            logp = rows.log_softmax(penalised)
            # By logits, first of equals first: the rounded sum of a long answer would hide small differences.
            first = argmax(penalised)
            rest = best(penalised.scatter(-1, first, -torch.inf), count - 1)[1]
            flat = torch.cat((first, rest), -1)[0]
            totals = s["score"] + logp[0, flat]
        else:
            logp = self.apply_chains(rows.log_softmax(z), s, p, rng)
            totals, flat = (row[0] for row in best((s["score"][:, None] + logp).view(1, -1), count))
        return logp, Continuations(totals, flat // vocab, flat % vocab)

    def apply_chains(self, z: Tensor, s: State, p: Params, rng: Rng) -> Tensor:
        """Runs logits or log-probabilities `[R, V]` through the stages of both chains."""
        return self.after.apply(self.before.apply(z, p, s, rng), p, s, rng)

    def compete(self, found: Continuations, s: State, p: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Sets those continuations aside that end, and lets the best others live on.

        Returns:
            int64 `[R]`, the places of the live ones among the continuations; and the columns, `[R]` each.
        """
        beams = len(s["score"])
        ends = (found.token[:, None] == s["eos"][:1]).any(-1)
        s["length"] += 1
        finished = self._finish_best(s, p, found.score[:beams], ends[:beams])
        live = self.order(found, ends, beams)[:beams]
        s["score"].copy_(found.score[live])
        over = self._is_over(s, p, self.front(found, s))
        none = finished.isnan()
        return live, {
            "score": s["score"].clone(),
            "finished": finished,
            "finished_parent": found.row[:beams].masked_fill(none, -1).float(),
            "finished_id": found.token[:beams].masked_fill(none, -1).float(),
            "over": over.float(),
        }

    def order(self, found: Continuations, ends: Tensor, beams: int) -> Tensor:
        """Sorts the places of continuations, int64 `[C]`: those that go on first, best first."""
        return ends.byte().argsort(stable=True)  # they come best first

    def front(self, found: Continuations, s: State) -> Tensor:
        """Gives the score `[1]` that decides whether a better answer can still come: the best live one's."""
        return s["score"][:1]

    def _finish_best(self, s: State, p: Params, totals: Tensor, ends: Tensor) -> Tensor:
        """Adds those of the B best candidates that end to the finished ones.

        Returns:
            float32 `[R]`: the score of each that finished, NaN for the others.
        """
        import torch

        last = s["length"] >= s["max_length"]
        enters = (ends | last) & s["improvable"] & ~self.is_full(s, p)
        score = self.normalise(totals, s["length"], p)
        merged = torch.cat((s["finished"], score.masked_fill(~enters, -torch.inf)))
        s["finished"].copy_(merged.topk(totals.shape[0]).values)
        return score.masked_fill(~enters, torch.nan)

    def _is_over(self, s: State, p: Params, front: Tensor) -> Tensor:
        """Tells whether the search has ended, bool `[R]`, all equal; needs live scores up to date."""
        reachable = self.normalise(front, self.reach(s, p), p)
        s["improvable"] &= reachable > s["finished"].amin()
        return ~s["improvable"] | self.is_full(s, p) | (s["length"] >= s["max_length"])

    def normalise(self, totals: Tensor, length: Tensor, p: Params) -> Tensor:
        """Divides sums by a power of their lengths `[R]`."""
        return totals / length.float() ** p["length_penalty"][0]

    def reach(self, s: State, p: Params) -> Tensor:
        """Gives the length at which live hypotheses are scored for the bound, int64 `[R]`."""
        to_the_end = (p["early_stopping"][0] == NEVER) & (p["length_penalty"][0] > 0)
        return s["max_length"].where(to_the_end, s["length"])

    def is_full(self, s: State, p: Params) -> Tensor:
        """Tells whether B hypotheses have finished and that is enough, bool `[1]`."""
        full = (s["finished"] > -inf).all()
        return full & ((p["early_stopping"][0] == ON) | (s["finished"].shape[0] == 1))

    def ranked(self, records: Records) -> list[Choice]:
        """Lists the B best finished hypotheses; of a search cut short, live ones count too."""
        if not records.tokens:
            return []
        return [choice for _, choice in self.hypotheses(records)][: len(records.tokens[0])]

    def hypotheses(self, records: Records) -> list[tuple[int, Choice]]:
        """Lists every hypothesis that finished, with the row that it continued, best first.

        Of a search cut short, live ones count too.
        """
        extras, last = records.extras, len(records.tokens) - 1
        ended = (extras[name] for name in ("finished", "finished_parent", "finished_id"))
        found = [
            (int(parent), Choice((*records.path(step - 1, int(parent)), int(token)), score))
            for step, row in enumerate(zip(*ended, strict=True))
            for score, parent, token in zip(*row, strict=True)
            if parent >= 0
        ]
        if not any(extras["over"][last]):
            penalty = records.values.get("length_penalty", 0.0)
            found += [
                (row, Choice(records.path(last, row), score / float(last + 1) ** penalty))
                for row, score in enumerate(extras["score"][last])
            ]
        alive = [each for each in found if each[1].score > DEAD / 2]
        return sorted(alive, key=lambda each: each[1].score, reverse=True)
