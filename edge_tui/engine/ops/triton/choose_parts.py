"""Holds what the kernels of fused steps share: their arguments, penalties, and their launch."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.engine.ops.triton.launch import chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State, Step
    from edge_tui.decoders.core.random import Rng

INF = tl.constexpr(float("inf"))
_CHUNK = tl.constexpr(64)
"""Candidates of a list compared with each other at a time; seldom more are on it."""


class Logits(NamedTuple):
    """Holds logits `[R, …, ≥ V]` in any precision, and the numbers from one row to the next."""

    z: Any
    stride: Any


class Penalties(NamedTuple):
    """Holds counts int32 `[R, V]` of prompt and output, and a parameter `[R]` for each penalty."""

    prompt: Any
    output: Any
    repetition: Any
    presence: Any
    frequency: Any


class Noise(NamedTuple):
    """Holds the fields of `edge_tui.decoders.core.random.Rng`."""

    key: Any
    step: Any


class Winner(NamedTuple):
    """Holds each program's best candidate, score and id, and its second best score `[R, blocks]`.

    Of a row `[R]`: programs done, the token, and its margin, by how much its score exceeds the second.
    """

    best: Any
    at: Any
    second: Any
    arrived: Any
    chosen: Any
    margin: Any


@triton.jit
def is_last(counter, count):
    """Tells whether all `count` programs have come by now, so that this one sees all their stores."""
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="acq_rel")
    last = arrived == count - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def load_and_keep(logits, raw, row, ids, V):
    """Loads a row's logits, float32, −inf beyond the vocabulary, and copies them where there is a `raw`.

    What computes the next ones need not wait until these have been recorded.
    """
    x = tl.load(logits.z + row * logits.stride + ids, mask=ids < V, other=-INF).to(tl.float32)
    if raw is not None:
        tl.store(raw + row * V + ids, x, mask=ids < V)
    return x


@triton.jit
def penalise(x, penalties, row, ids, V):
    """Applies penalties to float32 `x`; −inf in place of NaN."""
    inside = ids < V
    theta = tl.load(penalties.repetition + row)
    flat = tl.load(penalties.presence + row)
    slope = tl.load(penalties.frequency + row)
    if (theta != 1.0) | (flat != 0.0) | (slope != 0.0):
        output_counts = tl.load(penalties.output + row * V + ids, mask=inside, other=0)
        total_counts = output_counts + tl.load(penalties.prompt + row * V + ids, mask=inside, other=0)
        divided = tl.div_rn(x, theta)
        multiplied = x * theta
        low = tl.minimum(divided, multiplied)
        high = tl.maximum(divided, multiplied)
        x = tl.where(total_counts > 0, tl.where(theta >= 1.0, low, high), x)
        x = x - tl.where(output_counts > 0, flat, 0.0)
        x = x - slope * output_counts.to(tl.float32)
    return tl.where(x == x, x, -INF)


@triton.jit
def peak_of(peaks, row, count, PARTS: tl.constexpr):
    """Returns the row's greatest logit."""
    parts = tl.arange(0, PARTS)
    return tl.max(tl.load(peaks + row * count + parts, mask=parts < count, other=-INF), 0)


@triton.jit
def ranks(x, COUNT: tl.constexpr):
    """Returns the place of each of `COUNT` numbers when they are sorted, the greatest first."""
    spots = tl.arange(0, COUNT)
    earlier = (x[None, :] == x[:, None]) & (spots[None, :] < spots[:, None])
    return tl.sum(((x[None, :] > x[:, None]) | earlier).to(tl.int32), 1)


@triton.jit
def append_best(scores, names, filled, x, number, first_name, BLOCK: tl.constexpr):
    """Appends the `number` best of a block to a list; their names count from `first_name`."""
    if number > 0:
        spots = tl.arange(0, BLOCK)
        first = tl.atomic_add(filled, number, sem="relaxed")
        for i in range(number):
            value, index = tl.max(x, 0, return_indices=True)
            tl.store(scores + first + i, value)
            tl.store(names + first + i, first_name + index)
            x = tl.where(spots == index, -INF, x)


@triton.jit
def take_best(
    scores, names, filled, less, best, best_names, most, nameless: tl.constexpr, COUNT: tl.constexpr
):
    """Empties a list: writes its `most` best in order, the first name of equals first, and −inf behind them.

    For each candidate it counts how many are better. `less` is taken from the scores that are written.
    """
    found = tl.atomic_add(filled, 0, sem="relaxed")
    slots, chunk = tl.arange(0, COUNT), tl.arange(0, _CHUNK)
    unused = (slots >= found) & (slots < most)
    tl.store(best + slots, tl.full((COUNT,), float("-inf"), tl.float32), mask=unused)
    tl.store(best_names + slots, tl.full((COUNT,), nameless, tl.int32), mask=unused)
    for start in range(0, found, _CHUNK):
        spot = start + chunk
        inside = spot < found
        value = tl.load(scores + spot, mask=inside, other=-INF, cache_modifier=".cg")
        name = tl.load(names + spot, mask=inside, other=0, cache_modifier=".cg")
        place = tl.zeros((_CHUNK,), tl.int32)
        for other in range(0, found, _CHUNK):
            rival = other + chunk
            real = rival < found
            theirs = tl.load(scores + rival, mask=real, other=-INF, cache_modifier=".cg")
            their_name = tl.load(names + rival, mask=real, other=0x7FFFFFFF, cache_modifier=".cg")
            equal = (theirs[None, :] == value[:, None]) & (their_name[None, :] < name[:, None])
            place += tl.sum(((theirs[None, :] > value[:, None]) | equal).to(tl.int32), 1)
        tl.store(best + place, value - less, mask=inside & (place < most))
        tl.store(best_names + place, name, mask=inside & (place < most))
    tl.store(filled, 0)
    tl.debug_barrier()


class Launch:
    """Holds how the kernels of a step are launched.

    Each row of the vocabulary is spread over `blocks` programs of `block` candidates: enough for every
    multiprocessor, few enough to sum up in one go.

    Args:
        width: Vocabulary `V`; logits may be wider.
        chosen: int64 `[R]`, takes the tokens; every tensor is on its device.
        most: Most candidates of a program.
    """

    def __init__(self, width: int, chosen: Tensor, most: int = 1024) -> None:
        self.width, self.rows, self.device, self.chosen = width, len(chosen), chosen.device, chosen
        share: int = triton.next_power_of_2(triton.cdiv(width, 128))
        self.block = min(max(share, 32), most)
        self.blocks: int = triton.cdiv(width, self.block)
        self.grid = (self.blocks, self.rows)
        # Without contraction a penalised logit is the same to the last bit as from single operations.
        self.options = {"BLOCK": self.block, "enable_fp_fusion": False, **chain(self.device)}
        # What comes before the first kernel are torch operations and copies, which are waited for in full; so
        # is what comes before a branch.
        self.first = {name: value for name, value in self.options.items() if name != "launch_pdl"}
        self.shape: dict[str, Any] = {"PARTS": triton.next_power_of_2(self.blocks)}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Makes a buffer on the device."""
        return torch.empty(shape, dtype=dtype, device=self.device)


class FusedStep(Launch):
    """Runs a strategy's step as kernels. The tensors that it returns are the same each time."""

    def __init__(self, width: int, chosen: Tensor, most: int = 1024) -> None:
        super().__init__(width, chosen, most)
        self.raw = self.empty(self.rows, width)
        """float32 `[R, V]`, a copy of the main stream's logits that the last step read."""

    def winner(self) -> Winner:
        """Makes the buffers that a choice passes through on its way into `chosen`."""
        at = self.empty(self.rows, self.blocks, dtype=torch.int32)
        arrived = torch.zeros(self.rows, dtype=torch.int32, device=self.device)
        best, second = self.empty(2, self.rows, self.blocks)
        return Winner(best, at, second, arrived, self.chosen, self.empty(self.rows))

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `Decoder.step`; `chosen` and `parent` are there at once, the rest of it after `finish`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Completes the last step with what the next forward does not wait for."""


def last_logits(output: Output) -> Logits:
    """Returns the logits of a stream's last position, each row in one piece."""
    logits = output.logits[:, -1]
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    return Logits(logits, logits.stride(0))


def penalties_of(s: State, p: Params) -> Penalties:
    """Returns what penalties are computed from."""
    counts = s["prompt_counts"], s["output_counts"]
    return Penalties(*counts, p[REPETITION.name], p[PRESENCE.name], p[FREQUENCY.name])
