"""Keeps the tokens of a run that stages read: counts over the vocabulary, and the last ones in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.stage import Env, Needs, State

COUNTS = ("prompt_counts", "output_counts")
"""Keys of the token counts, int32 `[R, V]`."""
HISTORY = "ids"
"""Key of the last tokens, int64 `[R, N]`."""
TOKENS = (*COUNTS, HISTORY)
"""Keys of a state that every stage may read and none may write."""


def keys_of(needs: Needs) -> tuple[str, ...]:
    """Lists the keys that a stage finds in its state beside its own."""
    return (COUNTS if needs.counts else ()) + ((HISTORY,) if needs.history else ())


def init_tokens(env: Env, history: int) -> State:
    """Counts the tokens of prompt and prefix, and keeps the last `history` of them."""
    length = env.prompt.shape[1] - env.prefix
    state = {
        "prompt_counts": _count(env.prompt[:, :length], env.vocab),
        "output_counts": _count(env.prompt[:, length:], env.vocab),
    }
    if history:
        state[HISTORY] = _last(env.prompt, history)
    return state


def add_tokens(s: State, chosen: Tensor) -> None:
    """Adds the tokens taken, int64 `[R]`, in place."""
    import torch

    taken = chosen[:, None]
    s["output_counts"].scatter_add_(1, taken, torch.ones_like(taken, dtype=torch.int32))
    if HISTORY in s:
        s[HISTORY].copy_(torch.cat((s[HISTORY][:, 1:], taken), 1))


def add_accepted(s: State, tokens: Tensor, accepted: Tensor) -> None:
    """Adds the tokens of a step that checked proposals to the last ones, in place.

    Args:
        s: A state with `HISTORY`; token counts are left alone, which no strategy that proposes reads.
        tokens: int64 `[R, K]`.
        accepted: int64 `[R]`; of each row the first `accepted + 1` tokens are added.
    """
    import torch

    place = torch.arange(s[HISTORY].shape[1], device=tokens.device) + accepted[:, None] + 1
    s[HISTORY].copy_(torch.cat((s[HISTORY], tokens), 1).gather(1, place))


def reorder_tokens(s: State, parent: Tensor) -> None:
    """Copies row `parent[r]` to row `r`; `parent` int64 `[R]`."""
    for key in TOKENS:
        if key in s:
            s[key].copy_(s[key].index_select(0, parent))


def _count(ids: Tensor, vocab: int) -> Tensor:
    """Counts each row's tokens, int32 `[R, V]`; padding and ids beyond the vocabulary aside."""
    import torch

    counts = torch.zeros(ids.shape[0], vocab + 1, dtype=torch.int32, device=ids.device)
    inside = ids.where((ids >= 0) & (ids < vocab), vocab)
    counts.scatter_add_(1, inside, torch.ones_like(inside, dtype=torch.int32))
    return counts[:, :-1].contiguous()


def _last(ids: Tensor, count: int) -> Tensor:
    """Takes each row's last `count` ids; a right-padded row's are moved to the end, −1 before them."""
    from torch.nn.functional import pad

    padded = pad(ids, (count, 0), value=-1)
    order = (padded >= 0).byte().argsort(dim=-1, stable=True)
    return padded.gather(-1, order)[:, -count:].contiguous()
