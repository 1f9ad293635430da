"""Applies stages in order, from a model's logits to the distribution that a token is drawn from.

The order is explicit, because it is part of a definition: the same numbers in another order are another
distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from math import inf
from operator import or_
from typing import TYPE_CHECKING

from edge_tui.decoders.core import checks, rows, step_log
from edge_tui.decoders.core.best import argmax, only
from edge_tui.decoders.core.column import Column, as_columns, names_of
from edge_tui.decoders.core.params import Param, ParamError, Params
from edge_tui.decoders.core.stage import Stage
from edge_tui.decoders.core.texts import AnyParam, numbers
from edge_tui.decoders.core.tokens import add_tokens, init_tokens, keys_of, reorder_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import Env, State, Token


@dataclass(frozen=True, slots=True)
class Link:
    """Holds one stage of a chain, and the names that it has there.

    Attributes:
        stage: The stage; one object may stand in several chains.
        number: 1, or more where a stage of this name stands before it: its parameters then end in it
            (`top_k_2`), and its random numbers are its own.
    """

    stage: Stage
    number: int = 1

    @property
    def name(self) -> str:
        """The name as a chain is typed, `xtc` or `xtc#2`."""
        name = self.stage.name or type(self.stage).__name__
        return name if self.number == 1 else f"{name}#{self.number}"

    @property
    def params(self) -> tuple[AnyParam, ...]:
        """The stage's parameters, under the names that they have in the chain."""
        if self.number == 1:
            return self.stage.params
        return tuple(replace(param, name=self._public(param.name)) for param in self.stage.params)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The stage's columns, under the names that they have in the chain."""
        columns = as_columns(self.stage.columns)
        return tuple(replace(column, name=self._public(column.name)) for column in columns)

    def view(self, p: Params) -> Params:
        """Gives the stage its parameters under the names that it reads."""
        if self.number == 1:
            return p
        return p.rename({param.name: self._public(param.name) for param in numbers(self.stage.params)})

    def env(self, env: Env) -> Env:
        """Gives the stage its values and texts under the names that it reads."""
        if self.number == 1:
            return env
        names = {param.name: self._public(param.name) for param in self.stage.params}
        values = {**env.values, **{a: env.values[b] for a, b in names.items() if b in env.values}}
        texts = {**env.texts, **{a: env.texts[b] for a, b in names.items() if b in env.texts}}
        return replace(env, values=values, texts=texts)

    def _public(self, name: str) -> str:
        return name if self.number == 1 else f"{name}_{self.number}"


class Chain:
    """Applies stages one after the other, with one flat state for all of them.

    The tokens of the run are kept once, whatever number of stages reads them (`core.tokens`). A stage's own
    tensors lie under its place, `"2.mu"`, its constants under `"2:mask"`.

    Args:
        stages: First to last; links where a stage stands twice.
        name: Begins the keys of the state; a decoder with several chains names them.
        first: Number of its first link among those of its decoder, by which a step's log names them; None
            logs nothing.
    """

    def __init__(self, stages: Sequence[Stage | Link] = (), name: str = "", first: int | None = None) -> None:
        self._first = first
        self.links = tuple(each if isinstance(each, Link) else Link(each) for each in stages)
        self.stages = tuple(link.stage for link in self.links)
        self._params = tuple(link.params for link in self.links)
        self.params = merge(param for params in self._params for param in params)
        self.name = f"{name}." if name else ""
        self.history = max((stage.needs.history for stage in self.stages), default=0)
        self._learners = [(i, link) for i, link in enumerate(self.links) if learns(link.stage)]
        self.learns = bool(self._learners)

    def constants(self, env: Env) -> State:
        """Makes every stage's constants."""
        return {
            f"{self.name}{i}:{key}": tensor
            for i, link in enumerate(self.links)
            for key, tensor in checks.constants(link.stage.constants, link.env(env)).items()
        }

    def init_stages(self, env: Env) -> State:
        """Allocates every stage's state."""
        return {
            f"{self.name}{i}.{key}": tensor
            for i, link in enumerate(self.links)
            for key, tensor in checks.init_stage(link.stage, link.env(env)).items()
        }

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all stages."""
        return tuple(column for link in self.links for column in link.columns)

    def column_values(self, s: State) -> list[Tensor]:
        """Reads the numbers of `columns` from the chain's state, float32 `[R]` each."""
        return [
            s[f"{self.name}{i}.{name}"][:, 0]
            for i, stage in enumerate(self.stages)
            for name in names_of(stage.columns)
        ]

    def init(self, env: Env) -> State:
        """Allocates every stage's state, and counts the tokens of the prompt."""
        return self.constants(env) | self.init_stages(env) | init_tokens(env, self.history)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Runs logits float32 `[R, V]` through the stages.

        A row that loses its last candidate on the way keeps the one that was likeliest at the start. A stage
        whose parameters are neutral changes nothing: it is left out where looking at a parameter waits for
        nothing, as on a CPU, and wherever `Params.left_out` names it; elsewhere its result is.

        Raises:
            StrategyError: a stage breaks the contract.
        """
        out = self.apply_links(z, p, s, rng) if self.links else z
        if out is z:
            return z
        return only(z, argmax(z)).where(rows.greatest(out) == -inf, out)

    def apply_links(
        self, z: Tensor, p: Params, s: State, rng: Rng, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Does the same with the links from `first` to before `last`; a row may lose its last candidate."""
        out = z
        if self.name == "after." and not first:
            self._log(step_log.OWN, z)  # what the decoder has done between its chains
        for i, link in list(enumerate(self.links))[first:last]:
            if self._first is not None and self._first + i in p.left_out:
                continue
            stage, own, values = link.stage, self._state_of(i, s), link.view(p)
            numbers, given = rng.link(link.name), out
            if not p.is_on_host:
                out = unless_neutral(stage, values, out, checks.apply(stage, out, values, own, numbers))
            elif not is_idle(stage, self._params[i], p.is_neutral):
                out = checks.apply(stage, out, values, own, numbers)
            elif len(own) > len(keys_of(stage.needs)) and not checks.is_own(type(stage)):
                checks.apply(stage, out, values, own, numbers)  # its state goes on all the same
            if self._first is not None and out is not given:
                self._log(self._first + i, out)
        return out

    def _log(self, number: int, z: Tensor) -> None:
        """Adds logits to the log of the step that runs, if it has one and the chain has a place in it."""
        if self._first is not None and (log := step_log.active()) is not None:
            log.add(number, z)

    def learn(self, s: State, p: Params, token: Token) -> None:
        """Tells the token taken to every stage that learns from it; `s` is the chain's state."""
        for i, link in self._learners:
            checks.observe(link.stage, self._state_of(i, s), link.view(p), token)

    def observe(self, s: State, p: Params, token: Token) -> None:
        """Counts the token taken, and tells the stages that learn from it."""
        add_tokens(s, token.id)
        self.learn(s, p, token)

    def reorder(self, s: State, parent: Tensor) -> None:
        """Copies row `parent[r]` to row `r` in the tokens and all stages' states; `parent` int64 `[R]`."""
        reorder_tokens(s, parent)
        self.reorder_stages(s, parent)

    def reorder_stages(self, s: State, parent: Tensor) -> None:
        """Does the same for the stages' states alone."""
        mine = tuple(f"{self.name}{i}." for i in range(len(self.links)))
        for key, tensor in s.items():
            if key.startswith(mine):
                tensor.copy_(tensor.index_select(0, parent))

    def _state_of(self, i: int, s: State) -> State:
        """Selects the state of stage `i`; the tensors are shared, so in-place updates last."""
        prefixes = f"{self.name}{i}.", f"{self.name}{i}:"
        start = len(prefixes[0])
        own = {key[start:]: tensor for key, tensor in s.items() if key.startswith(prefixes)}
        own.update((key, s[key]) for key in keys_of(self.stages[i].needs))
        return own


def learns(stage: Stage) -> bool:
    """Tells whether a stage learns from the tokens taken."""
    return type(stage).observe is not Stage.observe


def is_idle(stage: Stage, params: tuple[AnyParam, ...], is_neutral: Callable[[Param], bool]) -> bool:
    """Tells whether a stage changes no logit: every number that has a neutral value is at it.

    That is so of stages of this package, which is tested. Others are idle only where all their parameters are
    numbers with neutral values.

    Args:
        stage: The stage.
        params: Its parameters, under the names that they have in the chain.
        is_neutral: Tells whether one of them has its neutral value in all rows.
    """
    own = numbers(params)
    neutral = [param for param in own if param.neutral is not None]
    known = checks.is_own(type(stage)) or len(neutral) == len(params)
    return known and bool(neutral) and all(map(is_neutral, neutral))


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
