"""Checks a proposal in the place of a token once more, for strategies that propose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Literal

from edge_tui.engine.decode.host_copies import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.decoders.base import Decoder, Output, Params, Rng, State

Verdict = Literal["accepted", "rejected", "none"]
"""Codes of what became of the proposal in a token's place; "none" where none was made."""


@dataclass(frozen=True, slots=True)
class ProposalCheck:
    """Holds what would become of a proposal.

    Attributes:
        proposed: The id that would be proposed.
        is_accepted: True where it would be taken.
        token: The id that is taken then.
        ratio: p/q of the proposal; NaN where the strategy compares none.
        bound: The number that p/q must be above; NaN as for `ratio`.
    """

    proposed: int
    is_accepted: bool
    token: int
    ratio: float = nan
    bound: float = nan

    def verdict(self, token: int, recorded: Mapping[str, float], is_first: bool) -> Verdict:
        """Tells what became of the proposal in the place of a token that was taken.

        Proposals are a function of step and text, but whether one was made is not; the record knows.

        Args:
            token: The id.
            recorded: Its recorded numbers `drafted` and `rejected`; without them the likeliest is told.
            is_first: True for the first token of an answer, before which nothing is proposed.
        """
        if "drafted" not in recorded and is_first:
            return "none"
        if "drafted" in recorded:
            is_accepted, was_made = recorded["drafted"] > 0, recorded.get("rejected", -1.0) >= 0
        else:
            is_accepted, was_made = self.is_accepted and token == self.token, token == self.token
        return "accepted" if is_accepted else "rejected" if was_made else "none"


def check_proposal(
    decoder: Decoder, outs: Mapping[str, Output], s: State, p: Params, rng: Rng
) -> ProposalCheck:
    """Lets a strategy propose the next token, and check it.

    Args:
        decoder: The strategy; its second stream, if it has one, is the draft's.
        outs: Logits `[1, 1, V]` of every stream.
        s: The state, left as it is.
        p: The parameters.
        rng: The step's random numbers.
    """
    import torch

    state = {name: tensor.clone() for name, tensor in s.items()}
    main, *draft = (stream.name for stream in decoder.streams)
    proposed = decoder.propose(outs[draft[0]] if draft else None, state, p, rng, 0)
    criterion = decoder.criterion(outs, state, p, rng)
    # What follows the proposal does not matter to the check; it only has to be there.
    twice = torch.cat((outs[main].logits, outs[main].logits), 1)
    step = decoder.step({main: replace(outs[main], logits=twice)}, state, p, rng)
    assert step.tokens is not None, "a step that checks proposals gives the tokens of all positions"
    assert step.accepted is not None
    found = [proposed[0], step.accepted[0], step.tokens[0, 0]]
    if criterion is not None and criterion.bound is not None:
        found += [criterion.values[0, proposed[:1]], criterion.bound[0, 0]]
    token, accepted, taken, *numbers = (each for (each,) in read(*found))
    return ProposalCheck(int(token), accepted > 0, int(taken), *numbers)
