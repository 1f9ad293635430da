"""Asks other strategies what they would have taken of the same logits, with the same luck."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Env, Output, ParamError
from edge_tui.decoders.core import step_checks
from edge_tui.decoders.core.params import KnownParams
from edge_tui.decoders.core.random import draw
from edge_tui.decoders.core.tokens import COUNTS, init_tokens
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.decode.host_copies import read, to_device
from edge_tui.engine.decode.param_table import effective
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.engine.explanation import OtherChoice
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from edge_tui.decoders.base import Params, Rng, State
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.port import Question

DIGITS = 9
"""Strategies that have a key of their own."""


def other_choices(
    question: Question, plan: RunPlan, raw: Tensor, state: State, rng: Rng
) -> tuple[OtherChoice, ...]:
    """Lists what other strategies take, with the question's values where they have such a parameter.

    Those that read other streams, layers or rows, and those that learn from their own tokens, are left out:
    their step cannot be told from these logits. The others draw at once: their luck is the same.

    Args:
        question: It names the strategies, or leaves it to the digits.
        plan: The run's facts.
        raw: float32 `[R, V]`, the main model's logits; the first row counts.
        state: Of the question's own strategy, before its step; left as it is.
        rng: The step's random numbers.
    """
    import torch

    env = _env(plan, str(raw.device))
    steps = []
    for decoder in _asked(question, plan.decoder):
        try:
            steps.append(_prepare(decoder, plan, env))
        except (RequestError, ParamError):
            continue  # the question's values do not fit it
    if not steps:
        return ()
    tokens = {name: state[name][:1] for name in COUNTS if name in state}
    if len(tokens) < len(COUNTS) or any(step.history for step in steps):
        tokens = init_tokens(env, max(step.history for step in steps))
    own = _of_rows(rng, 1)
    drawing = [step for step in steps if step.draws]
    finals = [step.final(raw[:1], tokens, own) for step in drawing]
    drawn = draw(torch.cat(finals), _of_rows(rng, len(finals))) if finals else own.key[:0]
    others = [step for step in steps if not step.draws]
    taken = [step.take(raw[:1], tokens, own) for step in others]
    (ids,) = read(torch.cat((drawn, *taken)))
    chosen = {id(step): int(token) for step, token in zip((*drawing, *others), ids, strict=True)}
    texts = plan.main.tokenizer.token_strings([chosen[id(step)] for step in steps])
    return tuple(
        OtherChoice(step.name, step.decoder.title, chosen[id(step)], text)
        for step, text in zip(steps, texts, strict=True)
    )


def _of_rows(rng: Rng, count: int) -> Rng:
    """Gives a number of rows the random numbers of the first one."""
    rows = copy(rng)
    rows.key = rng.key[:1].expand(count)
    return rows


def _asked(question: Question, own: Decoder) -> Iterator[Decoder]:
    """Yields the strategies to ask that a single row of logits is enough for."""
    names = question.others or [each.name for each in decoders.strategies()[:DIGITS]]
    for name in names:
        try:
            decoder = decoders.find(name)
        except UnknownStrategy:
            continue
        is_plain = decoder.kind == "sample" and len(decoder.streams) == 1 and not decoder.learns
        reads_layers = decoder.needs.layers or type(decoder).needs_of is not Decoder.needs_of
        if is_plain and not reads_layers and decoder.name != own.name:
            yield decoder


@dataclass(frozen=True, slots=True)
class OtherStep:
    """Takes the step of a strategy that no run is under.

    Attributes:
        name: The strategy's, as it was asked for.
        decoder: It, with the stages that the checkpoint's settings ask for.
        env: Its run.
        params: Its values.
    """

    name: str
    decoder: Decoder
    env: Env
    params: Params

    @property
    def draws(self) -> bool:
        """True where its step is a draw from its last logits, so that all such steps can be one draw."""
        return self._chooses and type(self.decoder).choose is Decoder.choose

    @property
    def _chooses(self) -> bool:
        """True where its step is a choice from its last logits, which follow from the tokens before."""
        kind = type(self.decoder)
        return (kind.step, kind.init) == (Decoder.step, Decoder.init)

    @property
    def history(self) -> int:
        """Last tokens that its stages read."""
        decoder = self.decoder
        return max(decoder.before.history, decoder.after.history, decoder.needs.history)

    def final(self, raw: Tensor, tokens: State, rng: Rng) -> Tensor:
        """Computes the logits that it draws from, float32 `[1, V]`.

        Args:
            raw: float32 `[1, V]`, the model's.
            tokens: Those before, as `init_tokens` keeps them; left as they are.
            rng: The step's random numbers.
        """
        decoder, env = self.decoder, self.env
        state = decoder.before.init_stages(env) | decoder.after.init_stages(env) | tokens
        return decoder.final(self._outs(raw), decoder.constants(env) | state, self.params, rng)

    def take(self, raw: Tensor, tokens: State, rng: Rng) -> Tensor:
        """Takes the whole step; arguments are those of `final`. Returns the token int64 `[1]`."""
        if self._chooses:
            return self.decoder.choose(self.final(raw, tokens, rng), self.params, rng)
        state = self.decoder.constants(self.env) | self.decoder.init(self.env)
        return self.decoder.step(self._outs(raw), state, self.params, rng).chosen

    def _outs(self, raw: Tensor) -> dict[str, Output]:
        return {self.decoder.streams[0].name: Output(raw[:, None])}


def _env(plan: RunPlan, device: str) -> Env:
    """Describes one row that has read what the question's run has; the values are for each to add."""
    import torch

    return Env(
        1,
        plan.width,
        device,
        to_device([plan.ids], torch.int64, device),
        to_device(plan.main.tokenizer.end_ids, torch.int64, device),
        {},
        plan.max_new,
        prefix=len(plan.request.prefix),
        tokenizer=plan.main.strategy_tokenizer,
    )


def _prepare(decoder: Decoder, plan: RunPlan, env: Env) -> OtherStep:
    """Resolves a strategy's values, of the question's run where it has such parameters.

    Raises:
        RequestError, ParamError: they do not fit it.
    """
    name = decoder.name
    decoder = decoder.with_settings(plan.main.checkpoint.generation_config)
    names = {param.name for param in decoder.params}
    values = {name: value for name, value in plan.request.values.items() if name in names}
    request = replace(plan.request, strategy=name, values=values)
    own = step_checks.from_checkpoint(decoder, plan.main.checkpoint.generation_config)
    resolved = resolve_params(request, decoder, own)
    params = KnownParams(effective(decoder.params, resolved.values), 1, env.device)
    return OtherStep(name, decoder, replace(env, values=resolved.values, texts=resolved.texts), params)
