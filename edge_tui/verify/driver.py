"""Runs steps of a strategy on the CPU by hand: no model, no cache, no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_tui.decoders.base import (
    Choice,
    Decoder,
    Env,
    Output,
    Params,
    Records,
    Rng,
    State,
    Step,
    Text,
    numbers,
    texts,
)
from edge_tui.decoders.core.random import key_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Holds the input of one step, row by row.

    Attributes:
        streams: Logits float32 `[R, V]` by the names of the streams.
        values: Parameter values of each row; one entry holds for all.
        prompt: Ids int64 `[R, T]`.
        output: Ids int64 `[R, N]` of the answer so far.
        seed: Of the random numbers; row `r` gets those of step `first + r` of that run.
        first: The step of the first row.
        texts: Parameters that are text; missing ones have their defaults.
    """

    streams: Mapping[str, NDArray[np.float32]]
    values: Sequence[Mapping[str, float]]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    seed: int = 0
    first: int = 0
    texts: Mapping[str, Text] = field(default_factory=dict)


def one_row(rows: Rows, row: int) -> Rows:
    """Takes one row alone, with its own random numbers."""
    at = slice(row, row + 1)
    streams = {name: z[at] for name, z in rows.streams.items()}
    ids = rows.prompt[at], rows.output[at]
    return Rows(streams, rows.values[at], *ids, rows.seed, rows.first + row, rows.texts)


def step(decoder: Decoder, rows: Rows) -> Step:
    """Makes a state and does the step that follows the answer so far."""
    import torch

    count, vocab = next(iter(rows.streams.values())).shape
    ids = np.concatenate((rows.prompt, rows.output), 1)
    env = environment(decoder, ids, vocab, rows.values[0], rows.output.shape[1])
    state = start(decoder, replace(env, texts={**env.texts, **rows.texts}))
    outs = {name: Output(torch.from_numpy(z)[:, None]) for name, z in rows.streams.items()}
    params, rng = table(rows.values, count), random_numbers(count, rows.seed, rows.first)
    return decoder.step(outs, state, params, rng)


def start(decoder: Decoder, env: Env) -> State:
    """Makes the constants and the state of a run."""
    return decoder.constants(env) | decoder.init(env)


def defaults(decoder: Decoder) -> dict[str, float]:
    """Lists the default of each parameter that is a number."""
    return {param.name: param.default for param in numbers(decoder.params)}


def environment(
    decoder: Decoder,
    ids: NDArray[np.int64],
    vocab: int,
    values: Mapping[str, float],
    prefix: int = 0,
    most: int = 64,
    eos: Any = (),
) -> Env:
    """Describes a run whose rows begin with `ids`, int64 `[R, T]`; the last `prefix` are its own."""
    import torch

    ends = torch.tensor(list(eos), dtype=torch.int64)
    return Env(
        rows=len(ids),
        vocab=vocab,
        device="cpu",
        prompt=torch.from_numpy(ids),
        eos=ends,
        values=values,
        max_new_tokens=most,
        prefix=prefix,
        texts={param.name: param.default for param in texts(decoder.params)},
    )


def table(values: Sequence[Mapping[str, float]], rows: int) -> Params:
    """Makes the parameter table of so many rows; one entry holds for all."""
    import torch

    names = list(values[0])
    columns = torch.tensor([[row[name] for row in values] for name in names]).view(len(names), -1)
    return Params(names, columns.expand(-1, rows).contiguous())


def random_numbers(rows: int, seed: int, first: int = 0) -> Rng:
    """Makes random numbers of which each row gets those of another step of one run."""
    import torch

    return Rng(torch.full((rows,), key_of(seed)), first + torch.arange(rows))


def search(
    decoder: Decoder,
    logits: Callable[[torch.Tensor], torch.Tensor],
    prompt: Sequence[int],
    most: int,
    vocab: int,
    values: Mapping[str, float],
    eos: Sequence[int],
) -> Choice:
    """Decodes an answer with a strategy that chooses among rows, every row read again from its start.

    Args:
        decoder: The strategy.
        logits: Ids int64 `[R, T]` to the next token's logits `[R, V]`.
        prompt: Ids.
        most: Most steps.
        vocab: Width of the logits.
        values: Parameter values.
        eos: Ids that end a sequence.
    """
    import torch

    count = decoder.rows(values)
    ids = np.repeat(np.array([prompt], dtype=np.int64), count, 0)
    state = start(decoder, environment(decoder, ids, vocab, values, most=most, eos=eos))
    params, rng = table([values], count), random_numbers(count, 0)
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    extras: dict[str, list[list[float]]] = {name: [] for name in decoder.columns}
    for _ in range(most):
        out = Output(logits(torch.from_numpy(ids))[:, None])
        decided = decoder.step({stream.name: out for stream in decoder.streams}, state, params, rng)
        parent = np.arange(count) if decided.parent is None else decided.parent.numpy()
        ids = np.concatenate((ids[parent], decided.chosen.numpy()[:, None]), 1)
        rng.step += 1
        tokens.append(decided.chosen.tolist())
        parents.append(parent.tolist())
        for name in decoder.columns:
            extras[name].append(decided.extras[name].tolist())
        if decided.done is not None and bool(decided.done.all()):
            break
    return decoder.ranked(Records(tokens, parents, extras, values))[0]
