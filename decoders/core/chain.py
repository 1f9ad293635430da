"""Applies stages in order, from a model's logits to the distribution that a token is drawn from.

The order is explicit, because it is part of a definition: the same numbers in another order are another
distribution. `edge_tui.decoders.registry.sampling` builds the two orders in use.
"""

from __future__ import annotations

from functools import reduce
from math import inf
from operator import or_
from typing import TYPE_CHECKING

from edge_tui.decoders.core import checks
from edge_tui.decoders.core.best import argmax, only
from edge_tui.decoders.core.decoder import Decoder, Output
from edge_tui.decoders.core.params import ParamError, Params
from edge_tui.decoders.core.stage import Env, Stage
from edge_tui.decoders.core.texts import AnyParam, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import State

COUNTS = checks.COUNTS


class Chain:
    """Applies stages one after the other, with one flat state for all of them.

    Token counts are kept once, whatever number of stages reads them: int32 `[R, V]` under `prompt_counts`
    and `output_counts`. A stage's own tensors lie under its index, `"2.mu"`.

    Args:
        stages: First to last.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self.params = merge(param for stage in self.stages for param in stage.params)
        self._learners = any(type(stage).observe is not Stage.observe for stage in self.stages)

    def init(self, env: Env) -> State:
        """Allocates every stage's state, and counts the tokens of the prompt."""
        state: State = {
            f"{i}.{key}": tensor
            for i, stage in enumerate(self.stages)
            for key, tensor in checks.init(stage, env).items()
        }
        length = env.prompt.shape[1] - env.prefix
        state["prompt_counts"] = _count(env.prompt[:, :length], env.vocab)
        state["output_counts"] = _count(env.prompt[:, length:], env.vocab)
        return state

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Runs logits float32 `[R, V]` through the stages.

        A row that loses its last candidate on the way keeps the one that was likeliest at the start. A stage
        whose parameters are neutral changes nothing: it is left out on a CPU, where looking at a parameter
        waits for nothing; elsewhere its result is.

        Raises:
            StrategyError: a stage breaks the contract.
        """
        out = z
        for i, stage in enumerate(self.stages):
            own = self._state_of(i, s)
            if z.device.type != "cpu":
                out = unless_neutral(stage, p, out, checks.apply(stage, out, p, own, rng))
            elif not _is_neutral(stage, p):
                out = checks.apply(stage, out, p, own, rng)
            elif any(name not in COUNTS for name in own):
                checks.apply(stage, out, p, own, rng)  # its state goes on, as on a GPU
        return only(z, argmax(z)).where(out.amax(-1, keepdim=True) == -inf, out)

    def observe(self, s: State, chosen: Tensor, final: Tensor) -> None:
        """Counts the tokens taken, int64 `[R]`, and tells the stages that learn from them.

        Args:
            s: The chain's state, updated in place.
            chosen: int64 `[R]`.
            final: float32 `[R, V]`, the logits that they were chosen from.
        """
        import torch

        taken = chosen[:, None]
        s["output_counts"].scatter_add_(1, taken, torch.ones_like(taken, dtype=torch.int32))
        if self._learners:
            logp = final.gather(-1, taken)[:, 0] - final.logsumexp(-1)
            for i, stage in enumerate(self.stages):
                checks.observe(stage, self._state_of(i, s), chosen, logp)

    def reorder(self, s: State, parent: Tensor) -> None:
        """Copies row `parent[r]` to row `r` in every tensor of the state; `parent` int64 `[R]`."""
        for tensor in s.values():
            tensor.copy_(tensor.index_select(0, parent))

    def _state_of(self, i: int, s: State) -> State:
        """Selects the state of stage `i`; the tensors are shared, so in-place updates last."""
        prefix = f"{i}."
        own = {key.removeprefix(prefix): tensor for key, tensor in s.items() if key.startswith(prefix)}
        if self.stages[i].needs.counts:
            own.update((key, s[key]) for key in COUNTS)
        return own


def _is_neutral(stage: Stage, p: Params) -> bool:
    """Tells whether every parameter of a stage has, in all rows, the value at which it does nothing.

    A stage with texts is never left out: `p` does not have them.
    """
    own = numbers(stage.params)
    return bool(own) and len(own) == len(stage.params) and all(map(p.is_neutral, own))


def unless_neutral(stage: Stage, p: Params, z: Tensor, applied: Tensor) -> Tensor:
    """Returns `applied`, float32 `[R, V]`, and `z` in those rows where the stage is neutral.

    Stages of this package change no bit there, which is tested.
    """
    own = numbers(stage.params)
    if not own or len(own) < len(stage.params) or checks.is_own(type(stage)):
        return applied
    if any(param.neutral is None for param in own):
        return applied
    acts = [p[param.name].ne(param.neutral or 0.0) for param in own]
    return applied.where(reduce(or_, acts), z)


def _count(ids: Tensor, vocab: int) -> Tensor:
    """Counts each row's tokens, int32 `[R, V]`; padding and ids beyond the vocabulary aside."""
    import torch

    counts = torch.zeros(ids.shape[0], vocab + 1, dtype=torch.int32, device=ids.device)
    known = ids.where((ids >= 0) & (ids < vocab), vocab)
    counts.scatter_add_(1, known, torch.ones_like(known, dtype=torch.int32))
    return counts[:, :-1].contiguous()


def merge(params: Iterable[AnyParam]) -> tuple[AnyParam, ...]:
    """Lists parameters in order of first appearance, each name once.

    Raises:
        ParamError: two stages declare one name differently.
    """
    merged: dict[str, AnyParam] = {}
    for param in params:
        if merged.setdefault(param.name, param) != param:
            raise ParamError(
                f"Two stages declare the parameter {param.name} differently; give one another name."
            )
    return tuple(merged.values())


def last_logits(out: Output, s: State) -> Tensor:
    """Returns float32 `[R, V]`: logits of the last position, cut to the vocabulary of the state.

    Embeddings may be padded beyond the tokenizer's vocabulary, and by different amounts in two models of
    one family; `Env.vocab` is the width that counts.
    """
    return out.logits[:, -1, : s["output_counts"].shape[-1]].float()


class ChainDecoder(Decoder):
    """Decides on logits that a chain of stages has changed; most decoders begin with the penalties.

    Args:
        stages: First to last.
        params: The decoder's own parameters; those of the stages follow.
    """

    def __init__(self, stages: Sequence[Stage], params: Iterable[AnyParam] = ()) -> None:
        self.chain = Chain(stages)
        self.params = merge((*params, *self.chain.params))

    def init(self, env: Env) -> State:
        """Allocates the state of the chain."""
        return self.chain.init(env)
