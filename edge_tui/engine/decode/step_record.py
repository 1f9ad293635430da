"""What choosing a token comes to: the strategy's step, and what is recorded and fed of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.core.checks import is_own
from edge_tui.engine.ops.stats import ASTRAY, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Decoder, Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What is recorded of a step; the arguments of `ops.stats.record`."""

    raw: Tensor
    final: Tensor
    chosen: Tensor
    parent: Tensor
    done: Tensor
    version: Tensor
    extras: list[Tensor]
    candidates: Sequence[Tensor] = ()
    moved: bool = False

    def record(self) -> tuple[Tensor, Tensor]:
        """The record: integers and floats, as `ops.stats.record` lays them out."""
        return record(
            self.raw,
            self.final,
            self.chosen,
            self.parent,
            self.done,
            self.version,
            self.extras,
            self.moved,
            self.candidates,
        )


@dataclass(frozen=True, slots=True)
class StepBuffers:
    """The tensors that stay where they are while a run decides.

    Attributes:
        block: float32 `[P + 1, R]`, the parameters and in the last row their version.
        key: int64 `[R]`, of the random numbers.
        rows: int64 `[R]`, 0 … R − 1.
        step: int64 `[1]`, the index of the token being chosen; raised by each decision.
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


def sample(
    decoder: Decoder,
    step: Callable[[Mapping[str, Output], State, Params, Rng], Step],
    outs: Mapping[str, Output],
    state: State,
    params: Params,
    buffers: StepBuffers,
) -> Step:
    """Chooses the next token of each row and puts down on the buffers what the next forward needs.

    Args:
        decoder: The strategy.
        step: Its step, or one that does the same.
        outs: Logits by stream, float32 `[R, 1, V]`.
        state: The strategy's.
        params: Of this step.
        buffers: Read, and `tokens` and `parent` written.
    """
    from edge_tui.decoders.core.random import Rng

    took = step(outs, state, params, Rng(buffers.key, buffers.rows, buffers.step))
    if not is_own(type(decoder)):
        took = _in_range(took, buffers)
    # Fused steps write to the buffers themselves.
    if took.parent is not None and took.parent is not buffers.parent:
        buffers.parent.copy_(took.parent)
    if took.chosen is not buffers.tokens:
        buffers.tokens.copy_(took.chosen)
    return took


def _in_range(took: Step, buffers: StepBuffers) -> Step:
    """Brings the ids of a user's step into range; `done` marks the rows where they were not.

    An id that there is not would be read beyond the vocabulary, which costs a GPU its context.
    """
    chosen, astray = within(took.chosen, took.final.shape[-1])
    parent = took.parent
    if parent is not None:
        parent, lost = within(parent, len(buffers.tokens))
        astray = astray | lost
    ended = buffers.never if took.done is None else took.done
    return replace(took, chosen=chosen, parent=parent, done=ended + ASTRAY * astray)


def within(ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Brings ids int64 of any shape into `0 … size − 1`; returns too which were not there, int64 0 or 1."""
    safe = ids.clamp(0, size - 1)
    return safe, (safe != ids).long()


def apart(took: Step, outs: Mapping[str, Output]) -> Step:
    """A step none of whose tensors lies where the logits do, which the next forward overwrites."""
    places = {out.logits.untyped_storage().data_ptr() for out in outs.values()}

    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in places else tensor

    def own_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: own(tensor) for name, tensor in tensors.items()}

    return replace(
        took, final=own(took.final), extras=own_all(took.extras), candidates=own_all(took.candidates)
    )


def build_record(decoder: Decoder, took: Step, raw: Tensor, buffers: StepBuffers) -> StepRecord:
    """What is recorded of a step; nothing that the next forward waits for.

    Args:
        decoder: The strategy.
        took: What `sample` gave.
        raw: float32 `[R, V]`, the main stream's logits that it read.
        buffers: Read, and `step` raised.
    """
    done = buffers.never if took.done is None else took.done
    if not decoder.owns_eos and buffers.eos.numel():
        done = done | (took.chosen[:, None] == buffers.eos).any(-1)
    parent = buffers.rows if took.parent is None else took.parent
    extras = [took.extras[name].float() for name in decoder.columns]
    told = [took.candidates[name].float() for name in decoder.columns] if took.candidates else ()
    buffers.step.add_(1)
    version = buffers.block[-1]
    moved = took.parent is not None
    return StepRecord(raw, took.final, took.chosen, parent, done, version, extras, told, moved)
