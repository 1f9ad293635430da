"""What is recorded about each token: one row of integers, one row of floats, all made on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decoders.best import best
from edge_tui.engine.events import TOP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

INTS = ("id", "parent", "rank", "done", "version")
"""Leading integer columns; the ids of `TOP` raw and `TOP` final alternatives follow."""
FLOATS = ("raw_logp", "final_logp", "entropy")
"""Leading float columns; the log-probabilities of the alternatives and the strategy's extras follow, and last
those extras for each alternative, where the strategy tells them."""


def summarise(z: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics of the model's own distribution.

    Args:
        z: float32 `[R, V]`, raw logits.
        chosen: int64 `[R]`.

    Returns:
        log-probability of `chosen` `[R]`, its rank `[R]` (0 = most likely), entropy in nats `[R]`, and the
        `TOP` most likely ids and log-probabilities `[R, TOP]`. NaN or +inf among the logits makes the
        entropy non-finite, which is how the host notices without a wait.
    """
    import torch

    lse = z.logsumexp(-1, keepdim=True)
    logp = z - lse
    p = logp.exp()
    # 0 · −inf is 0 here: removed tokens carry no surprise.
    entropy = -(p * logp.clamp_min(torch.finfo(torch.float32).min)).sum(-1)
    picked = logp.gather(-1, chosen[:, None])
    rank = (logp > picked).sum(-1)
    values, ids = top(logp)
    return picked[:, 0], rank, entropy, ids, values


def top(logp: Tensor) -> tuple[Tensor, Tensor]:
    """The `TOP` largest entries and their ids `[R, TOP]`, best first; −1 where nothing is left."""
    import torch
    from torch.nn.functional import pad

    values, ids = best(logp, min(TOP, logp.shape[-1]))
    ids = torch.where(values == -torch.inf, -1, ids)
    if values.shape[-1] < TOP:
        missing = (0, TOP - values.shape[-1])
        values, ids = pad(values, missing, value=-torch.inf), pad(ids, missing, value=-1)
    return values, ids


def record(
    z: Tensor,
    final: Tensor,
    chosen: Tensor,
    parent: Tensor,
    done: Tensor,
    version: Tensor,
    extras: list[Tensor],
    moved: bool = False,
    candidates: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """One step's record.

    On an NVIDIA GPU it is two kernels (`stats_triton`); elsewhere plain torch operations.

    Args:
        z: float `[R, V]`, the raw logits of the sequence that each new row continues.
        final: float32 `[R, V]`, the logits the choice was made from.
        chosen: int64 `[R]`.
        parent: int64 `[R]`.
        done: bool `[R]`.
        version: float32 `[R]`, version of the parameter table.
        extras: float32 `[R]` each.
        moved: Whether the rows of `z` are still those of the step before, so that row `r` continues
            `z[parent[r]]`.
        candidates: float32 `[R, V]` each, or none: the extras for every token.

    Returns:
        int32 `[R, len(INTS) + 2·TOP]` and float32
        `[R, len(FLOATS) + 2·TOP + len(extras) + 2·TOP·len(candidates)]`.
    """
    from edge_tui.engine.ops.project import available

    given = (final, chosen, parent, done, version, extras)
    if z.is_cuda and available() is None:
        from edge_tui.engine.ops import stats_triton

        return stats_triton.record(z, *given, moved, candidates)
    ints, floats = reference(z.index_select(0, parent) if moved else z, *given)
    if candidates:
        import torch

        floats = torch.cat((floats, *(look_up(column, ints[:, len(INTS) :]) for column in candidates)), -1)
    return ints, floats


def look_up(column: Tensor, ids: Tensor) -> Tensor:
    """What a column float32 `[R, V]` says of the tokens `ids` int32 `[R, N]`; NaN where there is none."""
    found = column.gather(-1, ids.clamp_min(0).long())
    return found.masked_fill(ids < 0, float("nan"))


def reference(
    z: Tensor,
    final: Tensor,
    chosen: Tensor,
    parent: Tensor,
    done: Tensor,
    version: Tensor,
    extras: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """`record` in plain torch operations, on any device; the rows of `z` are in place, no candidates."""
    import torch

    z = z.float()
    raw_logp, rank, entropy, ids, logps = summarise(z, chosen)
    final_all = final.log_softmax(-1)
    final_values, final_ids = top(final_all)
    lead = torch.stack((chosen, parent, rank, done.long(), version.long()), -1)
    ints = torch.cat((lead, ids, final_ids), -1).int()
    columns = (raw_logp, final_all.gather(-1, chosen[:, None])[:, 0], entropy)
    floats = [torch.stack(columns, -1), logps, final_values]
    if extras:
        floats.append(torch.stack(extras, -1).float())
    return ints, torch.cat(floats, -1)
