"""Compares the final logits of single steps with a reference, on random distributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import RandomState

from edge_tui.decoders.base import Decoder, Output, numbers
from edge_tui.verify import driver
from edge_tui.verify.distributions import KINDS, SIZES, Float32, logits, size, values
from edge_tui.verify.outcome import Comparison, Context, of_library, words
from edge_tui.verify.references.kinds import Recording, StepReference
from edge_tui.verify.references.recorded import sampled

_ROWS = 4
"""Rows of one step, each with its own distribution and values."""
_LARGE_EVERY = 100
"""Of so many steps one has the largest vocabulary, which chance would take too rarely."""
_MOST_IDS = 12
"""Most ids of prompt and answer each."""


def random_rows(decoder: Decoder, seed: int, rows: int = _ROWS) -> driver.Rows:
    """Makes the input of one step from a number.

    Args:
        decoder: The strategy, which says what it reads.
        seed: The number of the case.
        rows: Rows `R`.
    """
    random = RandomState(seed)
    vocab, kind = size(random), str(random.choice(KINDS))
    if seed % _LARGE_EVERY == _LARGE_EVERY - 1:
        vocab = SIZES[-1]
    streams: dict[str, Float32] = {}
    for stream in decoder.streams:
        drawn = [logits(random, vocab, kind) for _ in range(rows)]
        # A second model is never quite sure that a token cannot be, unless it has removed it.
        streams[stream.name] = _stack(drawn) if not streams else _stack(drawn, floor=-80.0)
    params = numbers(decoder.params)
    shared = values(random, params)
    of_run = {param.name for param in params if not param.live}
    each = [
        {name: shared[name] if name in of_run else number for name, number in values(random, params).items()}
        for _ in range(rows)
    ]
    for name in driver.early_names(decoder, each[0]):
        streams[name] = _stack([logits(random, vocab, kind) for _ in range(rows)], floor=-80.0)
    lengths = random.randint(1, _MOST_IDS), random.randint(0, _MOST_IDS)
    prompt, output = (random.randint(0, vocab, (rows, length)).astype(np.int64) for length in lengths)
    ends = random.randint(0, vocab, random.randint(0, 3)).tolist()
    return driver.Rows(streams, each, prompt, output, seed, ends=ends)


def _stack(rows: list[Float32], floor: float | None = None) -> Float32:
    stacked = np.stack(rows)
    low = floor is not None and (stacked < floor) & (stacked > -np.inf)
    return np.where(low, np.float32(floor or 0.0), stacked)


def compare_steps(
    decoder: Decoder, reference: StepReference, cases: int, seed: int = 0
) -> tuple[Comparison, Comparison]:
    """Compares a strategy's final logits with its reference, a row a case.

    Returns:
        The comparison with the own loop, and the one with the other program, which leaves out cases with
        values that the program does not know.
    """
    import torch

    by_loop, by_peer = Comparison(), Comparison()
    for number in range(seed, seed + -(-cases // _ROWS)):
        rows = random_rows(decoder, number)
        texts = reference.texts(RandomState(number)) if reference.texts is not None else {}
        rows = replace(rows, texts=texts)
        found = driver.step(decoder, rows).final.numpy()
        for row, final in enumerate(found):
            v = rows.values[row]
            context = Context(
                tuple(rows.prompt[row].tolist()),
                tuple(rows.output[row].tolist()),
                texts,
                rows.first + row,
                tuple(rows.ends),
            )
            case = f"case {number} row {row} ({len(final):,} tokens, {words(v)})"
            streams = {name: z[row].astype(np.float64) for name, z in rows.streams.items()}
            expected = reference.step(streams, v, context)
            by_loop.add(final, expected, case)
            if reference.peer is None:
                continue
            main = torch.from_numpy(next(iter(rows.streams.values()))[row])[None].clone()
            theirs = reference.peer.call(main, v, context)
            if theirs is not None:
                by_peer.add(final, [of_library(theirs[0].numpy(), expected)], case, sorts=True)
    return by_loop, by_peer


def compare_recorded(decoder: Decoder, reference: StepReference, recording: Recording) -> Comparison:
    """Compares a strategy's final logits with those that another program was seen to leave, step by step."""
    import torch

    comparison = Comparison()
    for number, case in enumerate(sampled(recording.sampler)):
        v = driver.defaults(decoder) | dict(recording.values(case.arguments))
        told, stream = np.array([case.history], dtype=np.int64), decoder.streams[0].name
        env = driver.environment(decoder, told, len(case.before[0]), v, told.shape[1])
        state, p, rng = driver.start(decoder, env), driver.table([v], 1), driver.random_numbers(1, 0)
        context = Context(output=case.history)
        for at, (z, left) in enumerate(zip(case.before, case.after, strict=True)):
            raw = torch.from_numpy(z)[None]
            final = decoder.final({stream: Output(raw[:, None])}, state, p, rng)
            expected = reference.step({stream: z.astype(np.float64)}, v, context)
            name = f"recorded case {number} step {at} ({words(v)})"
            comparison.add(final[0].numpy(), [of_library(left, expected)], name, sorts=True)
            if case.chosen:
                decoder.take(torch.tensor(case.chosen[at : at + 1]), final, raw, state, p, rng)
                rng.step += 1
                learned = (*context.steps, (z.astype(np.float64), case.chosen[at]))
                context = replace(context, steps=learned)
    return comparison
