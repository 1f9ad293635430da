"""Runs a strategy by hand: no cache, no threads, every row read again from its start at each step.

This is all that a strategy asks of whatever runs it, and the slow reference that the engine is to agree with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from edge_tui.decoders import base
from edge_tui.decoders.base import Choice, Decoder, Env, Output, Params, Records, State, names_of
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.verify.driver import with_layers

Logits = Callable[[Tensor], Tensor]
"""Next-token logits: int64 `[R, T]` → float `[R, V]`."""


@dataclass
class Run:
    """Holds the steps of a run, one entry each."""

    tokens: list[list[int]] = field(default_factory=list)
    parents: list[list[int]] = field(default_factory=list)
    finals: list[Tensor] = field(default_factory=list)
    extras: dict[str, list[list[float]]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    choice: Choice | None = None

    @property
    def answer(self) -> list[int]:
        """The chosen sequence; row 0 where the strategy leaves no choice."""
        return list(self.choice.tokens) if self.choice else [row[0] for row in self.tokens]


def param_values(decoder: Decoder, **values: object) -> dict[str, float]:
    """Lists every number among a strategy's parameters, at its default unless another value is named."""
    own = base.numbers(decoder.params)
    unknown = values.keys() - {param.name for param in own}
    assert not unknown, unknown
    return {param.name: param.parse(values.get(param.name, param.default)) for param in own}


def begin(decoder: Decoder, env: Env) -> State:
    """Makes the state of a run, constants included; texts have their defaults."""
    defaults = {param.name: param.default for param in base.texts(decoder.params)}
    env = replace(env, texts=defaults | dict(env.texts))
    return decoder.constants(env) | decoder.init(env)


def table(decoder: Decoder, rows: int = 1, **values: object) -> Params:
    """Makes the parameter table of a strategy on the CPU."""
    resolved = param_values(decoder, **values)
    return Params(list(resolved), torch.tensor(list(resolved.values()))[:, None].repeat(1, rows))


def numbers(rows: int = 1, seed: int = 0, step: int = 0) -> Rng:
    """Makes the random numbers of a run's samples: each has a seed of its own."""
    return Rng(torch.tensor([key_of(seed + row) for row in range(rows)]), torch.tensor([step]))


def run(
    decoder: Decoder,
    models: Mapping[str, Logits],
    prompt: Sequence[int],
    max_new_tokens: int,
    vocab: int,
    eos: Sequence[int] = (),
    seed: int = 0,
    change: Mapping[int, Mapping[str, float]] | None = None,
    **values: object,
) -> Run:
    """Decodes one prompt.

    Args:
        decoder: The strategy.
        models: Logits for each of its roles.
        prompt: Ids.
        max_new_tokens: Most steps.
        vocab: Width of the logits that the strategy is to see.
        eos: Ids that end a sequence.
        seed: Of the random numbers.
        change: New parameter values by the step from which they hold.
        **values: Parameters; the others have their defaults.
    """
    columns = names_of(decoder.columns)
    done = Run(values=param_values(decoder, **values), extras={name: [] for name in columns})
    rows = decoder.rows(done.values)
    ids = torch.tensor([list(prompt)]).expand(rows, -1)
    params, rng = table(decoder, rows, **values), numbers(rows, seed)
    if decoder.kind == "search":  # all of its rows have one seed
        rng.key[:] = rng.key[0].clone()
    ends = torch.tensor(list(eos), dtype=torch.int64)
    state = begin(decoder, Env(rows, vocab, "cpu", ids, ends, done.values, max_new_tokens))
    for step in range(max_new_tokens + decoder.lag):
        for name, value in (change or {}).get(step, {}).items():
            params[name].fill_(value)
        outs = {s.name: Output(models[s.role](ids)[:, None]) for s in decoder.streams}
        main = decoder.streams[0].name
        outs[main] = with_layers(decoder, done.values, outs[main])
        decided = decoder.step(outs, state, params, rng)
        parent = torch.arange(rows) if decided.parent is None else decided.parent
        ids = torch.cat((ids[parent], decided.chosen[:, None]), 1)
        rng.step += 1
        done.tokens.append(decided.chosen.tolist())
        done.parents.append(parent.tolist())
        done.finals.append(decided.final.clone())
        for name in columns:
            done.extras[name].append(decided.extras[name].tolist())
        over = decided.done if decoder.owns_eos else torch.isin(decided.chosen, ends)
        if over is not None and bool(over.all()):
            break
    ranked = decoder.ranked(Records(done.tokens, done.parents, done.extras, done.values))
    done.choice = ranked[0] if ranked else None
    return done
