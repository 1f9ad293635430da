"""Records each token as one row of integers and one of floats, all made on the device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edge_tui.decoders.core.best import best
from edge_tui.engine.ops.removal import Removals, removing_stages
from edge_tui.engine.token_fields import TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

INTS = ("id", "parent", "rank", "done", "version", "candidate_count")
"""Leading integer columns; the ids of `TOP` raw and `TOP` final alternatives follow, and last the links that
removed the raw ones."""
FLOATS = ("raw_logp", "final_logp", "entropy", "margin")
"""Leading float columns; the log-probabilities of the alternatives and the strategy's extras follow, and last
those extras for each alternative, where the strategy tells them."""

ALTERNATIVES = slice(len(INTS), len(INTS) + 2 * TOP)
"""Integer columns of the ids of alternatives."""
STAGES = slice(len(INTS) + 2 * TOP, len(INTS) + 3 * TOP)
"""Integer columns of the links that removed alternatives."""

ENDED, OUT_OF_RANGE = 1, 2
"""Bits of a record's `done`: the row has ended; its strategy gave a token or a parent that there is not."""

_LEAST = -1e30
"""Stands for −inf where that would make NaN of 0."""


def summarise(z: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Computes statistics of the model's own distribution.

    Args:
        z: float32 `[R, V]`, raw logits.
        chosen: int64 `[R]`.

    Returns:
        log-probability of `chosen` `[R]`, its rank `[R]` (0 = most likely), entropy in nats `[R]`, and the
        `TOP` most likely ids and log-probabilities `[R, TOP]`. NaN or +inf among the logits makes the
        entropy non-finite, which is how the host notices without a wait.
    """
    # As few passes over the vocabulary as will do: on a CPU they are what a record costs.
    peak = z.amax(-1, keepdim=True)
    depth = z - peak
    weight = depth.exp()
    total = weight.sum(-1, keepdim=True)
    lse = peak + total.log()
    # 0 · −inf is 0 here: removed tokens carry no surprise.
    surprise = depth.clamp_min_(_LEAST).mul_(weight).sum(-1, keepdim=True)
    entropy = (total.log() - surprise / total)[:, 0]
    picked = z.gather(-1, chosen[:, None])
    rank = (z - picked).gt_(0).sum(-1).long()
    values, ids = top(z)
    return (picked - lse)[:, 0], rank, entropy, ids, values - lse


def top(z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the `TOP` largest entries and their ids `[R, TOP]`, best first; −inf and −1 if none is left."""
    import torch
    from torch.nn.functional import pad

    values, ids = best(z, min(TOP, z.shape[-1]))
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
    margin: Tensor | None = None,
    removals: Sequence[Removals | None] = ((),),
    removing_stage: Tensor | None = None,
    ends: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Records one step.

    On an NVIDIA GPU it is two kernels (`stats_triton`); elsewhere plain torch operations.

    Args:
        z: float `[R, V]`, the raw logits of the sequence that each new row continues.
        final: float32 `[R, V]`, the logits the choice was made from.
        chosen: int64 `[R]`.
        parent: int64 `[R]`.
        done: bool or int `[R]`, `ENDED` and `OUT_OF_RANGE`.
        version: float32 `[R]`, version of the parameter table.
        extras: float32 `[R]` each.
        moved: True if the rows of `z` are still those of the step before, so that row `r` continues
            `z[parent[r]]`.
        candidates: float32 `[R, V]` each, or none: the extras for every token.
        margin: float32 `[R]`; None where it has no meaning.
        removals: What the step's links left, of all rows together or of each row, which is a position then.
        removing_stage: int8 `[R, V]`, the link that removed each token, `UNKNOWN` where `removals` tell; None
            where they tell all.
        ends: int64 `[E]`, tokens that end the row that takes them; None where `done` says all.

    Returns:
        int32 `[R, len(INTS) + 3·TOP]` and float32
        `[R, len(FLOATS) + 2·TOP + len(extras) + 2·TOP·len(candidates)]`.
    """
    import torch

    from edge_tui.engine.ops.triton.availability import takes

    if takes(z):
        from edge_tui.engine.ops.triton import stats as stats_triton

        decision = (final, chosen, parent, done, version, extras)
        ints, floats = stats_triton.record(z, *decision, moved, candidates, margin, removing_stage, ends)
        if any(each is None or each for each in removals):  # else the kernels have found what there is
            origin, ids = parent if moved else None, ints[:, ALTERNATIVES][:, :TOP]
            ints[:, STAGES] = _stages(final, removals, origin, removing_stage, ids).int()
        return ints, floats
    if ends is not None and len(ends):
        done = done | (chosen[:, None] == ends).any(-1)
    decision = (final, chosen, parent, done, version, extras)
    found = partial(_stages, final, removals, parent if moved else None, removing_stage)
    ints, floats = reference(z.index_select(0, parent) if moved else z, *decision, margin, found)
    if candidates:
        floats = torch.cat((floats, *(look_up(column, ints[:, ALTERNATIVES]) for column in candidates)), -1)
    return ints, floats


def _stages(
    final: Tensor,
    removals: Sequence[Removals | None],
    parent: Tensor | None,
    removing_stage: Tensor | None,
    ids: Tensor,
) -> Tensor:
    """Finds the links that removed the raw alternatives of a record, int64 `[R, TOP]`."""
    import torch

    if len(removals) == 1:
        return removing_stages(ids, final, removals[0], parent, removing_stage)
    parts = [
        removing_stages(ids[row : row + 1], final[row : row + 1], each) for row, each in enumerate(removals)
    ]
    return torch.cat(parts)


def look_up(column: Tensor, ids: Tensor) -> Tensor:
    """Looks a column float32 `[R, V]` up at the tokens `ids` int32 `[R, N]`; NaN for no token."""
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
    margin: Tensor | None = None,
    stages: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes `record` in plain torch, on any device; the rows of `z` are in place, no candidates.

    Args: as those of `record`, and `stages`: finds the links that removed the raw alternatives, of whose ids
    int64 `[R, TOP]` it makes int64 `[R, TOP]`; without it those columns are missing.
    """
    import torch

    z = z.float()
    raw_logp, rank, entropy, ids, logps = summarise(z, chosen)
    final_values, final_ids = top(final)
    final_peak = final_values[:, :1]
    # A CPU takes 25 times as long for e^−∞; e^−87 is nothing beside the peak's 1.
    final_lse = final_peak + (final - final_peak).clamp_min_(-87.0).exp_().sum(-1, keepdim=True).log()
    count = final.clone().gt_(-torch.inf).sum(-1).long()  # a sum of floats: that of flags is not vectorised
    lead = torch.stack((chosen, parent, rank, done.long(), version.long(), count), -1)
    removed_by = () if stages is None else (stages(ids),)
    ints = torch.cat((lead, ids, final_ids, *removed_by), -1).int()
    margin = torch.full_like(entropy, torch.nan) if margin is None else margin
    columns = (raw_logp, (final.gather(-1, chosen[:, None]) - final_lse)[:, 0], entropy, margin)
    floats = [torch.stack(columns, -1), logps, final_values - final_lse]
    if extras:
        floats.append(torch.stack(extras, -1).float())
    return ints, torch.cat(floats, -1)
