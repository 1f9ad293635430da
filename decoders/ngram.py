"""N-gram decoding proposes what followed the last few tokens where they stood before; no second model.

Prompt lookup (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). The last n tokens are looked for
in the last 4,096 of prompt and answer, with n from `max_ngram` down to 1 until they are found. What followed
the first of the places is proposed, token by token; behind the end of the text it goes on with the proposals
themselves, which repeats them. Where nothing is found, the last token is proposed again: as many positions
are read in any case.

The model reads all proposals in one step. At each position a token is drawn as sampling draws it, with the
luck of that position: a proposal that equals it is accepted, and the first that does not is replaced by it.
The chance of acceptance is `p(x)`, and a replacement comes from `p` without `x`: speculative decoding (arXiv
2211.17192) whose draft is sure of `x`. The text is that of sampling at the same seed, token for token: only
the time differs, and that depends on how often the text repeats itself.

Defaults: 3 tokens as in the author's repository. The proposals are those of transformers'
`PromptLookupCandidateGenerator` (5.23), which proposes nothing where nothing is found, and less than asked
for at the end of the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Decoder,
    Env,
    Needs,
    Output,
    Param,
    Params,
    Rng,
    State,
    Step,
    Tensor,
    repeat_lengths,
)
from edge_tui.decoders.core.random import draw_and_margin
from edge_tui.decoders.core.step_log import move_to
from edge_tui.decoders.core.tokens import HISTORY, add_accepted
from edge_tui.decoders.speculative import LOOKAHEAD, PROPOSALS
from edge_tui.decoders.temperature import Temperature

MAX_NGRAM = Param(
    "max_ngram",
    default=3,
    low=1,
    high=8,
    step=1,
    integer=True,
    label="n-gram",
    help="Most tokens at the end of the text that are looked for in it: more find rarer and surer places.",
)


class NGram(Decoder):
    """Takes what was proposed as far as sampling draws the same.

    Each token records `drafted` and `rejected` as speculative decoding does.
    """

    name = "ngram"
    title = "n-gram"
    summary = "Proposes what followed the last words before: sampling's text, faster where it repeats."
    rank = 60
    needs = Needs(history=4096)
    columns = PROPOSALS

    def __init__(self) -> None:
        super().__init__(after=(Temperature(),), params=(LOOKAHEAD, MAX_NGRAM))

    def num_draft_tokens(self, values: Mapping[str, float]) -> int:
        """Gives `lookahead`."""
        return int(values.get("lookahead", LOOKAHEAD.default))

    def init(self, env: Env) -> State:
        """Keeps the last tokens, and allocates the proposals."""
        import torch

        k = self.num_draft_tokens(env.values)
        state = super().init(env)
        state["proposed"] = torch.full((env.rows, k), -1, dtype=torch.int64, device=env.device)
        return state

    def propose(self, out: Output | None, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Looks the proposals up for all positions at the first."""
        if at == 0:
            s["proposed"].copy_(look_up(s[HISTORY], p["max_ngram"], s["proposed"].shape[1]))
        return s["proposed"][:, at]

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Draws a token at each position, and takes those up to the first that was not proposed."""
        import torch

        logits = outs["model"].logits.float()
        finals = []
        for at, z in enumerate(logits.unbind(1)):
            move_to(at)
            finals.append(self.after.apply(self.before.apply(z, p, s, rng.shift(at)), p, s, rng.shift(at)))
        draws = [draw_and_margin(z, rng.shift(at)) for at, z in enumerate(finals)]
        tokens, margin = (torch.stack(each, 1) for each in zip(*draws, strict=True))
        proposed = s["proposed"][:, : tokens.shape[1] - 1]
        accepted = (tokens[:, :-1] == proposed).cumprod(1).sum(1)
        add_accepted(s, tokens, accepted)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        replaced = torch.nn.functional.pad(proposed, (0, 1), value=-1)
        extras = {
            "drafted": (position < accepted[:, None]).float(),
            "rejected": replaced.masked_fill(position != accepted[:, None], -1).float(),
        }
        chosen = tokens.gather(1, accepted[:, None])[:, 0]
        final = torch.stack(finals, 1)
        return Step(chosen, final, accepted=accepted, tokens=tokens, extras=extras, margin=margin)


def look_up(ids: Tensor, longest: Tensor, count: int) -> Tensor:
    """Finds what followed the last n-gram where it stood first, for the greatest n that is found.

    Args:
        ids: int64 `[R, N]`, the newest last, −1 before the start.
        longest: float32 `[R, 1]`, the greatest n.
        count: Tokens to propose.

    Returns:
        int64 `[R, count]`.
    """
    import torch

    length = ids.shape[1]
    found = repeat_lengths(ids, int(MAX_NGRAM.high)).long().minimum(longest.long())
    first = (found * length - torch.arange(length, device=ids.device)).argmax(1, keepdim=True)
    start = torch.where(found.amax(1, keepdim=True) > 0, first, length - 1)
    offset = torch.arange(count, device=ids.device) % (length - start)
    return ids.gather(1, start + offset)
