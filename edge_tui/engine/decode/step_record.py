"""Chooses the next tokens with the strategy's step, and lays out the record of the choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.column import names_of
from edge_tui.decoders.core.step_log import logged
from edge_tui.engine.ops.removal import removals_of
from edge_tui.engine.ops.stats import OUT_OF_RANGE, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Decoder, Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.step_log import StepLog
    from edge_tui.engine.ops.removal import Removals


@dataclass(frozen=True, slots=True)
class StepBuffers:
    """Holds the tensors that keep their addresses from step to step.

    Attributes:
        block: float32 `[P + 1, R]`, the parameters and in the last row their version.
        key: int64 `[R]`, of each row's random numbers.
        rows: int64 `[R]`, 0 … R − 1.
        step: int64 `[1]`, the index of the token being chosen; raised by each step.
        eos: int64 `[E]`, ids that end a sequence.
        never: bool `[R]`, False.
        tokens: int64 `[R]`, the tokens chosen last; written.
        parent: int64 `[R]`, the rows they continue; written where rows move.
    """

    block: Tensor
    key: Tensor
    rows: Tensor
    step: Tensor
    eos: Tensor
    never: Tensor
    tokens: Tensor
    parent: Tensor


@dataclass(frozen=True, slots=True)
class Sampled:
    """Holds a step that was sampled, and what its record reads beside.

    Attributes:
        step: The strategy's decision.
        raw: float32 `[R, V]`, the main stream's logits that it read.
        removals: What the links of its chains left, as `ops.stats.record` takes it.
    """

    step: Step
    raw: Tensor
    removals: tuple[Removals | None, ...]


def sample(
    decoder: Decoder,
    choose: Callable[[Mapping[str, Output], State, Params, Rng], Step],
    outs: Mapping[str, Output],
    state: State,
    params: Params,
    buffers: StepBuffers,
) -> Sampled:
    """Chooses the next token of each row and writes what the next forward needs to the buffers.

    Args:
        decoder: The strategy.
        choose: Its `step`, or a function that does the same.
        outs: Logits by stream, float32 `[R, 1, V]`.
        state: The strategy's.
        params: Of this step.
        buffers: Read, and `tokens` and `parent` written.
    """
    from edge_tui.decoders.core.random import Rng

    with logged() as log:
        step = choose(outs, state, params, Rng(buffers.key, buffers.step))
    raw = outs[decoder.streams[0].name].logits[:, -1]
    if not is_own(type(decoder)):
        step = _in_range(step, buffers)
    # Fused steps write to the buffers themselves.
    if step.parent is not None and step.parent is not buffers.parent:
        buffers.parent.copy_(step.parent)
    if step.chosen is not buffers.tokens:
        buffers.tokens.copy_(step.chosen)
    return Sampled(replace(step, margin=margin_of(decoder, step, log)), raw, removals_of(log, len(raw)))


def margin_of(decoder: Decoder, step: Step, log: StepLog) -> Tensor | None:
    """Returns the margin of a step, and that of the logits where no luck decided.

    A search has none, and neither has a strategy whose verdict on proposals is no sum.
    """
    if decoder.kind == "search" or (decoder.kind == "propose" and step.margin is None):
        return None
    positions = step.final.shape[1] if step.final.ndim == 3 else 1
    leads = [log.lead(position) for position in range(positions)]
    known = [lead for lead in leads if lead is not None]
    if len(known) < positions or (step.margin is None and not log.takes_best):
        return step.margin
    if positions > 1:
        import torch

        known = [torch.stack(known, 1)]
    lead = known[0].view(step.final.shape[:-1])
    # Where no luck decided, one candidate was left to be drawn, or the strategy says +inf.
    return lead if step.margin is None else step.margin.minimum(lead)


def _in_range(step: Step, buffers: StepBuffers) -> Step:
    """Brings the ids of a user's step into range; `done` marks the rows where they were not.

    An id beyond the vocabulary would be read out of bounds, which costs a GPU its context.
    """
    chosen, wrong = clamp_ids(step.chosen, step.final.shape[-1])
    parent = step.parent
    if parent is not None:
        parent, wrong_parent = clamp_ids(parent, len(buffers.tokens))
        wrong = wrong | wrong_parent
    done = buffers.never if step.done is None else step.done
    return replace(step, chosen=chosen, parent=parent, done=done + OUT_OF_RANGE * wrong)


def cut(output: Output, width: int) -> Output:
    """Cuts logits, early ones too, to `width` entries in float32."""
    early = output.early
    early = None if early is None else early[..., :width].float()
    return replace(output, logits=output.logits[..., :width].float(), early=early)


def clamp_ids(ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Clamps ids int64 of any shape to `0 … size − 1`; marks those that were outside with 1, int64."""
    clamped = ids.clamp(0, size - 1)
    return clamped, (clamped != ids).long()


def clone_logits_views(sampled: Sampled, outs: Mapping[str, Output]) -> Sampled:
    """Clones the tensors of a step that share memory with a forward's, which the next one overwrites."""
    step = sampled.step
    given = {t.untyped_storage().data_ptr() for out in outs.values() for t in out.tensors().values()}

    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in given else tensor

    def own_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: own(tensor) for name, tensor in tensors.items()}

    step = replace(
        step, final=own(step.final), extras=own_all(step.extras), candidates=own_all(step.candidates)
    )
    removals = tuple(each and tuple((link, own(z)) for link, z in each) for each in sampled.removals)
    return Sampled(step, own(sampled.raw), removals)


def build_record(
    decoder: Decoder, sampled: Sampled, state: State, buffers: StepBuffers
) -> tuple[Tensor, Tensor]:
    """Computes the record of a step; the next forward waits for nothing of it.

    Args:
        decoder: The strategy.
        sampled: The result of `sample`.
        state: The strategy's, after the step.
        buffers: Read, and `step` raised.

    Returns:
        Integers and floats, as `ops.stats.record` lays them out.
    """
    step = sampled.step
    done = buffers.never if step.done is None else step.done
    parent = buffers.rows if step.parent is None else step.parent
    names = names_of(decoder.columns)
    of_stages = decoder.stage_columns(state)
    extras = [*(step.extras[name].float() for name in names), *of_stages]
    candidates = [step.candidates[name].float() for name in names] if step.candidates else []
    if candidates and of_stages:  # theirs are numbers of the step, not of an alternative
        import torch

        candidates += [torch.full_like(candidates[0], torch.nan)] * len(of_stages)
    buffers.step.add_(1)
    rows_permuted = step.parent is not None
    decision = step.final, step.chosen, parent, done, buffers.block[-1], extras
    ends = None if decoder.owns_eos else buffers.eos
    choice = step.margin, sampled.removals, step.removing_stage, ends
    return record(sampled.raw, *decision, rows_permuted, candidates, *choice)
