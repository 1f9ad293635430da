"""Runs steps of a strategy on the CPU by hand: no model, no cache, no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import RandomState

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
    names_of,
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
        streams: Logits float32 `[R, V]` by the names of the streams; of early layers by `early_names`.
        values: Parameter values of each row; one entry holds for all.
        prompt: Ids int64 `[R, T]`.
        output: Ids int64 `[R, N]` of the answer so far.
        seed: Of the random numbers; row `r` gets those of step `first + r` of that run.
        first: The step of the first row.
        texts: Parameters that are text; missing ones have their defaults.
        ends: Ids that end an answer.
    """

    streams: Mapping[str, NDArray[np.float32]]
    values: Sequence[Mapping[str, float]]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    seed: int = 0
    first: int = 0
    texts: Mapping[str, Text] = field(default_factory=dict)
    ends: Sequence[int] = ()


def one_row(rows: Rows, row: int) -> Rows:
    """Takes one row alone, with its own random numbers."""
    at = slice(row, row + 1)
    streams = {name: z[at] for name, z in rows.streams.items()}
    ids = rows.prompt[at], rows.output[at]
    return Rows(streams, rows.values[at], *ids, rows.seed, rows.first + row, texts=rows.texts, ends=rows.ends)


def step(decoder: Decoder, rows: Rows) -> Step:
    """Makes a state and does the step that follows the answer so far."""
    import torch

    count, vocab = next(iter(rows.streams.values())).shape
    ids = np.concatenate((rows.prompt, rows.output), 1)
    written = rows.output.shape[1]
    env = environment(decoder, ids, vocab, rows.values[0], written, eos=rows.ends)
    state = start(decoder, replace(env, texts={**env.texts, **rows.texts}))
    outs = {each.name: Output(torch.from_numpy(rows.streams[each.name])[:, None]) for each in decoder.streams}
    main = decoder.streams[0].name
    outs[main] = with_layers(decoder, rows.values[0], outs[main], rows.seed, rows.first)
    if early := [torch.from_numpy(rows.streams[name]) for name in early_names(decoder, rows.values[0])]:
        outs[main] = replace(outs[main], early=torch.stack(early, 1)[:, None])
    params, rng = table(rows.values, count), random_numbers(count, rows.seed, rows.first)
    return decoder.step(outs, state, params, rng)


_LAYERS, _WIDTH, _POSITIONS = 12, 6, 8
"""Layers, width and positions of the model that hidden states are made up for."""


def early_names(decoder: Decoder, values: Mapping[str, float]) -> list[str]:
    """Names the early layers whose logits a strategy reads."""
    return [f"early {layer}" for layer in decoder.needs_of(values, _LAYERS, False).early]


def with_layers(
    decoder: Decoder, values: Mapping[str, float], output: Output, seed: int = 0, first: int = 0
) -> Output:
    """Adds random hidden states, early logits and past states to logits, as far as a strategy needs them.

    Row `r` has numbers of `first + r` and of the seed; of a search all rows have one past.

    Args:
        decoder: The strategy.
        values: Parameter values.
        output: Logits `[R, K, V]`.
        seed: Of the random numbers.
        first: Number of the first row.
    """
    import torch

    needs = decoder.needs_of(values, _LAYERS, False)
    rows, k, vocab = output.logits.shape
    device = output.logits.device

    def random(*shape: int, one: bool = False) -> torch.Tensor:
        states = [
            RandomState(seed + (0 if one else first + row)).standard_normal(shape) for row in range(rows)
        ]
        return torch.from_numpy(np.stack(states).astype(np.float32)).to(device)

    tensors = {}
    if needs.hidden:
        tensors["hidden"] = random(k, len(needs.hidden), _WIDTH)
    if needs.early:
        tensors["early"] = random(k, len(needs.early), vocab) * 3
    if needs.past:
        tensors["past"] = random(_POSITIONS, _WIDTH, one=decoder.kind == "search")
        tensors["past_length"] = torch.full((rows,), _POSITIONS - 2, device=device)
    return replace(output, **tensors)


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
    columns = torch.tensor([[row[name] for row in values] for name in names]).view(len(names), len(values))
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
    seed: int = 0,
) -> list[Choice]:
    """Decodes with a strategy that chooses among rows, every row read again from its start; best first.

    Args:
        decoder: The strategy.
        logits: Ids int64 `[R, T]` to the next token's logits `[R, V]`.
        prompt: Ids.
        most: Most steps.
        vocab: Width of the logits.
        values: Parameter values.
        eos: Ids that end a sequence.
        seed: Of the random numbers, which all rows share.
    """
    import torch

    count = decoder.rows(values)
    ids = np.repeat(np.array([prompt], dtype=np.int64), count, 0)
    state = start(decoder, environment(decoder, ids, vocab, values, most=most, eos=eos))
    params = table([values], count)
    rng = Rng(torch.full((count,), key_of(seed)), torch.zeros(1, dtype=torch.int64))
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    extras: dict[str, list[list[float]]] = {name: [] for name in names_of(decoder.columns)}
    for _ in range(most):
        out = Output(logits(torch.from_numpy(ids))[:, None])
        decided = decoder.step({stream.name: out for stream in decoder.streams}, state, params, rng)
        parent = np.arange(count) if decided.parent is None else decided.parent.numpy()
        ids = np.concatenate((ids[parent], decided.chosen.numpy()[:, None]), 1)
        rng.step += 1
        tokens.append(decided.chosen.tolist())
        parents.append(parent.tolist())
        for name in names_of(decoder.columns):
            extras[name].append(decided.extras[name].tolist())
        if decided.done is not None and bool(decided.done.all()):
            break
    return decoder.ranked(Records(tokens, parents, extras, values))
