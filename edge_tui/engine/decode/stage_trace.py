"""Follows logits through the stages of a strategy's own step, one stage after the other.

Nothing is read of the device: `choice_numbers` does that once, for all stages.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.base import Chain, Decoder
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.step_log import logged
from edge_tui.decoders.registry.description import acting_links, is_off, stage_title
from edge_tui.engine.decode.step_record import margin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Criterion, Link, Output, Params, Rng, State, Step


@dataclass(frozen=True, slots=True)
class StageChange:
    """Holds what one stage made of logits.

    Attributes:
        name: Of the link, or of the strategy for its own part.
        title: For readers, with its values.
        before: float32 `[R, V]`.
        after: float32 `[R, V]`.
        neutral: True where its parameters let it do nothing.
        criterion: The numbers by which it decided; None where it declares none.
        differs: bool `[]`, False where it is none, because a strategy's own part changed nothing; None where
            it is one in any case.
    """

    name: str
    title: str
    before: Tensor
    after: Tensor
    neutral: bool = False
    criterion: Criterion | None = None
    differs: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Holds a step that was followed.

    Attributes:
        step: The step itself.
        changes: Of its stages, first to last; a strategy's own part stands where it may change logits.
        raw: float32 `[R, V]`, the main model's logits.
        final: float32 `[R, V]`, those that the token was chosen from.
        margin: float32 `[R]` (nats), as the record has it; None where it has no meaning.
        lead: float32 `[R]`, finite where the best was taken without luck; None where luck decided everywhere.
        takes_best: True where the best is taken in any case.
    """

    step: Step
    changes: tuple[StageChange, ...]
    raw: Tensor
    final: Tensor
    margin: Tensor | None
    lead: Tensor | None
    takes_best: bool


class TraceChain(Chain):
    """Applies the links of another chain one at a time, and keeps what each makes of the logits.

    Args:
        chain: The other; keys of states are the same.
        links: Those of its links that act; the others are not kept.
        values: Parameters by name, as the step uses them.
    """

    def __init__(self, chain: Chain, links: tuple[Link, ...], values: Mapping[str, float]) -> None:
        vars(self).update(vars(chain))
        self._acting = set(map(id, links))
        self._values = values
        self.changes: list[StageChange] = []
        self.before: Tensor | None = None
        """The logits that it was given, float32 `[R, V]`; None until it is applied."""
        self.after: Tensor | None = None
        """Those that it gave."""

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Does `Chain.apply`."""
        self.changes.clear()
        self.before = z
        self.after = super().apply(z, p, s, rng)
        if self.changes:  # a row that lost its last candidate has one again
            self.changes[-1] = replace(self.changes[-1], after=self.after)
        return self.after

    def apply_links(
        self, z: Tensor, p: Params, s: State, rng: Rng, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Does `Chain.apply_links`."""
        for i in range(len(self.links))[first:last]:
            link, before = self.links[i], z
            if id(link) not in self._acting:
                z = super().apply_links(z, p, s, rng, i, i + 1)
                continue
            neutral = is_off(link, self._values)
            criterion = None if neutral else self._criterion(i, z, p, s, rng)
            z = super().apply_links(z, p, s, rng, i, i + 1)
            title = stage_title(link, self._values)
            self.changes.append(StageChange(link.name, title, before, z, neutral, criterion))
        return z

    def _criterion(self, i: int, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion | None:
        """Asks a stage for its numbers, before it may write to its state."""
        link, own = self.links[i], self._state_of(i, s)
        if not is_own(type(link.stage)):  # `apply` may be the same function, and write twice then
            own = _copy(own)
        return link.stage.criterion(z, link.view(p), own, rng.link(link.name))


def trace_step(
    decoder: Decoder, outs: Mapping[str, Output], s: State, p: Params, rng: Rng, values: Mapping[str, float]
) -> Trace:
    """Runs a strategy's step, and follows the main stream's logits through it.

    The step is the strategy's own, so that its numbers are the draw's; the state stays as it is.

    Args:
        decoder: The strategy.
        outs: Logits by stream, float32 `[R, 1, V]`.
        s: The state, left as it is.
        p: The parameters.
        rng: The step's random numbers.
        values: The parameters by name, as the step uses them.
    """
    raw = outs[decoder.streams[0].name].logits[:, -1]
    before, after = (
        TraceChain(chain, links, values)
        for chain, links in zip((decoder.before, decoder.after), acting_links(decoder, values), strict=True)
    )
    followed = copy(decoder)
    followed.before, followed.after = before, after
    with logged() as log:
        step = followed.step(outs, _copy(s), p, rng)
    margin = margin_of(decoder, step, log)
    final = step.final[:, 0] if step.final.ndim == 3 else step.final
    changes, z = list(before.changes), raw if before.after is None else before.after
    if after.before is not None and after.after is not None:
        writes = not all(is_own(type(link.stage)) for link in decoder.before.links)  # as `_criterion` says
        own = _copy(s) if writes else s
        criterion = decoder.criterion(outs, own, p, rng) if decoder.kind == "sample" else None
        changes += [*_own_part(decoder, z, after.before, criterion), *after.changes]
        z = after.after
    changes += _own_part(decoder, z, final)
    return Trace(step, tuple(changes), raw, final, margin, log.lead(), log.takes_best)


def _own_part(
    decoder: Decoder, before: Tensor, after: Tensor, criterion: Criterion | None = None
) -> list[StageChange]:
    """Describes what the strategy itself has changed between two chains; nothing if it passed them on."""
    if before is after:
        return []
    differs = (before != after).any()
    return [StageChange(decoder.name, decoder.title, before, after, criterion=criterion, differs=differs)]


def _copy(s: State) -> State:
    return {name: tensor.clone() for name, tensor in s.items()}
