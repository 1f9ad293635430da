"""Checks at load that an architecture decodes step by step as it reads in one piece.

transformers has models whose state a caller cannot hold: under another argument's name, inside the module, or
not at all. They run without an error and answer wrongly. A dozen tokens tell: what a context gives, step by
step, as one row and as two rows that fork and change places, against one forward without any cache.

The measure is the distance of two logit vectors over the spread of the true one, `|a − b| / |b − mean b|`; of
a row's positions the median counts, because a router of experts may turn over at a single one. 16 bits round,
and deep or random weights enlarge that: the limit is 1e-2, or eight times what one rounding of the embeddings
moves the logits, if that is more. In float32 it is always the former.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.engine.ops.cuda_capture import capture

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.models.base import Context, LanguageModel

LIMIT = 1e-2
"""Distance that is put down to rounding, whatever the precision."""
_ROUNDINGS = 8
_BOUND = 1e15
"""Size that no logit has but those of ids that are ruled out; its square is still a number."""
_PREFIX, _PIECE, _STEPS, _APART = 2, 2, 3, 3
"""Tokens read first, then in one piece, then one by one as one row, and then as two."""


class Waits(Exception):
    """The host waits for the device in a step."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Holds distances from one uncached forward, in shares of the logits' spread.

    Attributes:
        one: Of a single row.
        two: Of two rows that were forked and reordered, and of the row they came from.
        limit: Distance that rounding explains.
    """

    one: float
    two: float
    limit: float

    @property
    def wrong(self) -> tuple[bool, bool]:
        """True for one row, and for two, if rounding does not explain the distance."""
        return self.one > self.limit, self.two > self.limit


@torch.inference_mode()
def deviation(model: LanguageModel, module: Any) -> Deviation:
    """Decodes a few tokens both ways.

    Args:
        model: The model to check.
        module: The transformers module in it.
    """
    ids = _tokens(model.info.vocab, module.device)
    true = _uncached(module, ids)
    eps = torch.finfo(module.dtype).eps
    rounding = _distances(_uncached(module, ids, eps / 2), true).median().item()
    start = _PREFIX + _PIECE
    context = model.open(1, ids.shape[1])
    read = [model.prefill(context, ids[:1, :_PREFIX]).logits]
    read.append(model.forward(context, ids[:1, _PREFIX:start]).logits)
    steps = [model.forward(context, ids[:1, i : i + 1]).logits for i in range(start, start + _STEPS)]
    one = max(_worst(read, true[:1, _PREFIX - 1 : start]), _worst(steps, true[:1, start : start + _STEPS]))
    try:
        two = _as_two_rows(model, context, ids, true)
    except (AttributeError, IndexError, TypeError, ValueError):  # the module itself cannot run two rows
        two = torch.inf
    return Deviation(one, two, max(LIMIT, _ROUNDINGS * rounding))


@torch.inference_mode()
def captured_deviation(model: LanguageModel, module: Any) -> float:
    """Decodes a few tokens by replaying one captured step, and measures as `Deviation.one` does.

    Raises:
        RuntimeError: something in the step cannot be captured.
        Waits: the host waits for the device in it.
    """
    ids = _tokens(model.info.vocab, module.device)[:1]
    true, start = _uncached(module, ids), _PREFIX + _PIECE
    context = model.open(1, ids.shape[1])
    model.prefill(context, ids[:, :_PREFIX])
    for at in range(_PREFIX, start):  # as it stands, which warms every kernel up
        model.forward(context, ids[:, at : at + 1])
    _refuse_waits(model, context.fork(1), ids[:, :1])
    fed, logits = ids[:, :1].clone(), true[:, :1].to(module.dtype)

    def step() -> None:
        logits.copy_(model.forward(context, fed).logits)

    graph, steps = capture(step), []
    for at in range(start, ids.shape[1]):
        fed.copy_(ids[:, at : at + 1])
        graph.replay()
        steps.append(logits.clone())
    return _worst(steps, true[:, start:])


def _refuse_waits(model: LanguageModel, context: Context, ids: Tensor) -> None:
    """Runs a step once more, in which the host must not wait: a capture that fails leaves more behind.

    Raises:
        Waits: it does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        model.forward(context, ids)
    except RuntimeError as error:  # the step has just run without one
        raise Waits from error
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _as_two_rows(model: LanguageModel, context: Context, ids: Tensor, true: Tensor) -> float:
    """Forks the row, feeds both, lets them change places, feeds them again, and goes on with the first."""
    at = _PREFIX + _PIECE + _STEPS
    rows = context.fork(2)
    before = [model.forward(rows, ids[:, at : at + 1]).logits]
    swapped = torch.tensor([1, 0], device=ids.device)
    rows.reorder(swapped)
    after = [model.forward(rows, ids[swapped, i : i + 1]).logits for i in range(at + 1, at + _APART)]
    root = [model.forward(context, ids[:1, at : at + 1]).logits]
    return max(
        _worst(before, true[:, at : at + 1]),
        _worst(after, true[swapped, at + 1 : at + _APART]),
        _worst(root, true[:1, at : at + 1]),
    )


def _tokens(vocab: int, device: Any) -> Tensor:
    """Makes int64 `[2, T]`: two rows that part near their end, of ids spread over the vocabulary."""
    shared = _PREFIX + _PIECE + _STEPS
    count = shared + 2 * _APART
    ids = torch.arange(1, count + 1, device=device) * (vocab - 1) // (count + 1)
    ids = ids[torch.arange(count, device=device) * 5 % count]  # 5 and the count have no common divisor
    return torch.stack((ids[: shared + _APART], torch.cat((ids[:shared], ids[shared + _APART :]))))


def _uncached(module: Any, ids: Tensor, noise: float = 0.0) -> Tensor:
    """Computes logits float32 `[R, T, V]` of one forward, each embedded number off by a share `noise`."""
    handle = None
    if noise:
        random = torch.Generator("cpu").manual_seed(0)

        def disturb(_module: Any, _inputs: Any, out: Tensor) -> Tensor:
            unit = torch.randn(out.shape, generator=random).to(out.device, out.dtype)
            return out + out * unit * noise

        handle = module.get_input_embeddings().register_forward_hook(disturb)
    try:
        logits: Tensor = module(input_ids=ids, use_cache=False).logits
    finally:
        if handle is not None:
            handle.remove()
    return logits.float()


def _worst(pieces: list[Tensor], true: Tensor) -> float:
    """Returns the largest of the rows' median distances; infinite where shapes are others."""
    got = torch.cat(pieces, 1).float()
    return float(_distances(got, true).quantile(0.5, dim=1).max()) if got.shape == true.shape else torch.inf


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Computes `|a − b| / |b − mean b|` of logits `[R, K, V]` as `[R, K]`; infinite for no number.

    Ids that the model itself rules out, with logits beyond all bounds, are left out.
    """
    finite = b.abs() < _BOUND
    mean = b.where(finite, 0).sum(-1, keepdim=True) / finite.sum(-1, keepdim=True)
    spread = (b - mean).where(finite, 0).norm(dim=-1).clamp(min=1 / _BOUND)
    return torch.nan_to_num((a - b).where(finite, 0).norm(dim=-1) / spread, nan=torch.inf)
