"""Asks other strategies what they would have taken of the same logits, with the same luck."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Env, Output, ParamError
from edge_tui.decoders.core import step_checks
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.decode.param_table import ParamTable
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.engine.explanation import OtherChoice
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from edge_tui.decoders.base import Rng
    from edge_tui.engine.decode.run_plan import RunPlan
    from edge_tui.engine.port import Question

DIGITS = 9
"""Strategies that have a key of their own."""


def other_choices(question: Question, plan: RunPlan, raw: Tensor, rng: Rng) -> tuple[OtherChoice, ...]:
    """Lists what other strategies take, with the question's values where they have such a parameter.

    Those that read other streams, layers or rows, and those that learn from their own tokens, are left out:
    their step cannot be told from these logits.

    Args:
        question: It names the strategies, or leaves it to the digits.
        plan: The run's facts.
        raw: float32 `[R, V]`, the main model's logits; the first row counts.
        rng: The step's random numbers.
    """
    found = []
    for decoder in _asked(question, plan.decoder):
        try:
            chosen = _choose(decoder, plan, raw[:1], rng)
        except (RequestError, ParamError):
            continue  # the question's values do not fit it
        text = plan.main.tokenizer.token_strings([chosen])[0]
        found.append(OtherChoice(decoder.name, decoder.title, chosen, text))
    return tuple(found)


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


def _choose(decoder: Decoder, plan: RunPlan, raw: Tensor, rng: Rng) -> int:
    """Takes another strategy's step on the logits."""
    import torch

    from edge_tui.decoders.core.random import Rng

    decoder = decoder.with_settings(plan.main.checkpoint.generation_config)
    names = {param.name for param in decoder.params}
    values = {name: value for name, value in plan.request.values.items() if name in names}
    request = replace(plan.request, strategy=decoder.name, values=values)
    own = step_checks.from_checkpoint(decoder, plan.main.checkpoint.generation_config)
    params = resolve_params(request, decoder, own)
    device = str(raw.device)
    table = ParamTable(decoder.params, params.values, 1, device)
    env = Env(
        1,
        plan.width,
        device,
        torch.tensor([plan.ids], device=device),
        torch.tensor(plan.main.tokenizer.end_ids, dtype=torch.int64, device=device),
        params.values,
        plan.max_new,
        prefix=len(plan.request.prefix),
        texts=params.texts,
        tokenizer=plan.main.strategy_tokenizer,
    )
    state = decoder.constants(env) | decoder.init(env)
    outs = {decoder.streams[0].name: Output(raw[:, None])}
    step = decoder.step(outs, state, table.params, Rng(rng.key[:1], rng.step))
    return int(step.chosen[0])
