"""Speculative decoding lets a small model propose tokens that the large one checks at once.

Leviathan et al. (arXiv 2211.17192), Chen et al. (arXiv 2302.01318). The draft proposes k tokens, each drawn
from its own distribution `q`; the target reads all of them in one step and gives `p` at each position. From
left to right a proposal `x` is accepted with probability `min(1, p(x) / q(x))`; at the first that is not, a
token drawn from `max(0, p − q)`, normalised, takes its place. If all are accepted, one more comes from `p`.

The output is distributed exactly as sampling from the target at that temperature, and at temperature 0
it is greedy decoding token for token (up to ties): only the time differs, and that depends on how often the
draft is right. Stages around it act on both distributions alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Column,
    Criterion,
    Decoder,
    Env,
    Output,
    Param,
    Params,
    Rng,
    State,
    Step,
    Tensor,
    draw,
)
from edge_tui.decoders.core.step_log import move_to
from edge_tui.decoders.temperature import TEMPERATURE, scale

LOOKAHEAD = Param(
    "lookahead",
    default=4,
    low=1,
    high=7,
    step=1,
    integer=True,
    live=False,
    help="Tokens that the draft proposes before the target checks them: more pay if most are accepted.",
)
PROPOSALS = (
    Column("drafted", "Yes for a proposal that was accepted.", ("no", "yes")),
    Column("rejected", "The proposal in whose place it stands.", role="token"),
)
"""Columns of strategies that propose tokens."""


class Speculative(Decoder):
    """Accepts or corrects a draft's proposals by the target's distribution.

    Each token records `drafted`: 1 if the draft proposed it, 0 if the target chose it, and `rejected`: the
    id of the proposal that it replaced, or −1.
    """

    name = "speculative"
    title = "speculative"
    summary = "Lets a small model propose and a large one check: the large one's text, faster."
    rank = 10
    roles = ("model", "draft")
    columns = PROPOSALS
    params = (LOOKAHEAD, TEMPERATURE)

    def num_draft_tokens(self, values: Mapping[str, float]) -> int:
        """Gives `lookahead`."""
        return int(values.get("lookahead", LOOKAHEAD.default))

    def init(self, env: Env) -> State:
        """Allocates the last proposals and the distributions that they were drawn from."""
        import torch

        k = self.num_draft_tokens(env.values)
        return {
            "proposed": torch.full((env.rows, k), -1, dtype=torch.int64, device=env.device),
            "q": torch.zeros(env.rows, k, env.vocab, device=env.device),
        }

    def shape(self, z: Tensor, s: State, p: Params, rng: Rng) -> Tensor:
        """Makes of a position's logits `[R, V]` those that are drawn from; the same for draft and target."""
        tempered = scale(self.before.apply(z.float(), p, s, rng), p["temperature"])
        return self.after.apply(tempered, p, s, rng)

    def propose(self, out: Output | None, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Draws the draft's token, and keeps it with its distribution for the check."""
        assert out is not None, "it has a draft model"
        z = self.shape(out.logits[:, -1, : s["q"].shape[-1]], s, p, rng.shift(at))
        proposed = draw(z, rng.shift(at))
        s["q"][:, at] = z.softmax(-1)
        s["proposed"][:, at] = proposed
        return proposed

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion:
        """Compares p/q of each token with the number that lets a proposal pass; q is that of the last one."""
        target = self.shape(outs["model"].logits[:, 0], s, p, rng).softmax(-1)
        return Criterion("p/q", target / s["q"][:, 0], rng.lane(0)[:, None])

    def luck(self, ids: Tensor, rng: Rng) -> Tensor:
        """Gives the noise of a token that the target draws: that of a draw made the proposal."""
        return rng.redraw().gumbel(ids)

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Checks the proposals.

        Args:
            outs: The target's logits `[R, k + 1, V]` after the token before the proposals and after each of
                them; `[R, 1, V]` where nothing was proposed.
            s: As `init` made it.
            p: The parameters.
            rng: The random numbers of the step's first token.
        """
        import torch

        logits = outs["model"].logits.float()
        rows, positions, vocab = logits.shape
        finals = []
        for i in range(positions):
            move_to(i)
            finals.append(self.shape(logits[:, i], s, p, rng.shift(i)))
        final = torch.stack(finals, 1)
        target = final.softmax(-1)
        count = positions - 1
        proposed, q = s["proposed"][:, :count], s["q"][:, :count]
        ids = proposed.clamp_min(0)[..., None]
        p_of, q_of = target[:, :count].gather(-1, ids)[..., 0], q.gather(-1, ids)[..., 0]
        passes = [rng.shift(i).lane(0) * q_of[:, i] < p_of[:, i] for i in range(count)]
        steps = torch.stack([torch.ones_like(s["proposed"][:, 0]), *(each.long() for each in passes)], 1)
        accepted = steps.cumprod(1).sum(1) - 1

        # The distribution of the token that follows the accepted ones: corrected, unless all were accepted.
        at = accepted[:, None, None].expand(rows, 1, vocab)
        target_next = target.gather(1, at)[:, 0]
        draft_next = torch.cat((q, torch.zeros_like(target[:, :1])), 1).gather(1, at)[:, 0]
        residual = (target_next - draft_next).clamp_min(0)
        # Rounding may leave nothing of two equal distributions; then a proposal was rejected by a hair.
        residual = residual.where(residual.sum(-1, keepdim=True) > 0, target_next)
        # A correction has other noise than its proposal, which that noise made a proposal.
        chosen = draw(residual.log(), rng.shift(accepted).redraw())

        replaced = torch.cat((proposed, torch.full_like(chosen[:, None], -1)), 1)
        tokens = torch.cat((ids[..., 0], chosen[:, None]), 1).scatter(1, accepted[:, None], chosen[:, None])
        position = torch.arange(positions, device=logits.device)
        extras = {
            "drafted": (position < accepted[:, None]).float(),
            "rejected": replaced.masked_fill(position != accepted[:, None], -1).float(),
        }
        return Step(chosen, final, accepted=accepted, tokens=tokens, extras=extras)
