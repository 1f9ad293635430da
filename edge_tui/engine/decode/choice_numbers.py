"""Gathers the numbers of a step that was followed on its device, and reads them with one wait.

A number read alone makes the host wait for a GPU, and an explanation has some hundred: what each stage kept,
cut and left of a few tokens, their luck and their sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING

from edge_tui.decoders.core import rows
from edge_tui.decoders.core.best import best
from edge_tui.engine.decode.host_copies import read, to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from edge_tui.engine.decode.stage_trace import Trace

BEST = 20
"""Candidates by their sums, and as many by the model's own distribution."""
_STAGE = 6
"""Numbers of a stage: kept, removed, mass, edge, 1 where it adds to logits, and 0 where it is none."""
_SHIFT = 1e-4
"""Nats by which the numbers that a stage adds must differ: rounding of one added to all stays below."""


@dataclass(frozen=True, slots=True)
class StageNumbers:
    """Holds what one stage did, as `StageView` has it.

    Attributes:
        kept: Tokens that it left.
        removed: Tokens that it took away.
        mass: Probability of those in the distribution that it was given.
        edge: The number at which it stopped; NaN where there is none.
        adds: True where its numbers of tokens are what it added to their logits.
    """

    kept: int
    removed: int
    mass: float
    edge: float
    adds: bool


@dataclass(frozen=True, slots=True)
class TokenNumbers:
    """Holds what the stages made of one token, as `Candidate` has it."""

    raw_logp: float
    rank: int
    luck: float
    sum: float
    logps: tuple[float, ...]
    criteria: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ChoiceNumbers:
    """Holds the numbers of the first row of a step.

    Attributes:
        chosen: The token that the step takes.
        margin: As the record has it (nats); NaN where it has no meaning.
        took_best: True where the best was taken without luck.
        lead: Best sum less the second (nats); NaN where one candidate is left.
        left: Tokens that the stages left.
        chance: Probability of the question's token in the distribution that it was drawn from.
        entropy: Of the model's own distribution (nats).
        columns: The strategy's own numbers of the token, by column, where the step computes them of each.
        changes: Numbers of those of the trace's changes that are some.
        stages: What each of these did.
        tokens: By id: those asked for, those with the best sums, and the model's likeliest.
        best: Ids with the best sums, best first.
        likeliest: Ids of the likeliest, best first.
    """

    chosen: int
    margin: float
    took_best: bool
    lead: float
    left: int
    chance: float
    entropy: float
    columns: dict[str, float]
    changes: tuple[int, ...]
    stages: tuple[StageNumbers, ...]
    tokens: dict[int, TokenNumbers]
    best: tuple[int, ...]
    likeliest: tuple[int, ...]


def gather(
    trace: Trace,
    token: int,
    others: Sequence[int],
    luck: Callable[[Tensor], Tensor] | None,
    columns: Sequence[str] = (),
) -> ChoiceNumbers:
    """Computes the numbers and reads them.

    Args:
        trace: The step.
        token: The question's token.
        others: Tokens that are asked for beside.
        luck: Gives the noise float32 `[N]` of tokens int64 `[N]`; None where none decided or it is unknown.
        columns: Names of the strategy's own numbers, `Step.candidates`.
    """
    import torch

    final, raw = trace.final[0], trace.raw[0].log_softmax(-1)
    took_best = torch.full_like(final[:1], trace.takes_best)
    sums, noise = final, None
    if luck is not None and not trace.takes_best:
        sums, noise = _add_luck(final, luck)
        if trace.lead is not None:
            took_best = trace.lead[:1].isfinite().float()
            sums = final.where(took_best > 0, sums)
    (top, _), best_ids = best(torch.stack((sums, raw)), min(BEST, len(raw)))
    asked = to_device((token, *others), torch.int64, raw.device)
    chosen = trace.step.chosen[:1]
    ids = torch.cat((asked, chosen, best_ids.flatten()))
    margin = took_best.new_full((1,), nan) if trace.margin is None else trace.margin.flatten()[:1]
    given = trace.step.candidates
    own = [given[name][0, asked[:1]] for name in columns] if given else []
    single = (
        *(chosen, margin, took_best, (final > -inf).sum()[None]),
        *(final.softmax(-1)[asked[:1]], rows.entropy(raw.exp()), *own),
    )
    stages, logps, criteria = _stages(trace, ids)
    total = sums[ids].double() - final.double().logsumexp(-1)  # less what makes log-probabilities of logits
    luck_of = torch.full_like(total, nan) if noise is None else noise(ids)
    of_ids = torch.stack((raw[ids], (raw > raw[ids, None]).sum(-1), luck_of, total)).double()
    numbers = read(torch.cat([each.double() for each in single]), ids, top, stages, of_ids, logps, criteria)
    return _sort(numbers, trace, len(asked), columns)


def _sort(
    numbers: Sequence[Sequence[float]], trace: Trace, asked: int, columns: Sequence[str]
) -> ChoiceNumbers:
    """Sorts what was read; leaves out what turns out to be no stage."""
    single, floats, top, stages, of_ids, logps, criteria = numbers
    chosen, margin, took_best, left, chance, entropy, *own = single
    ids, count = [int(token) for token in floats], len(floats)
    rows = [stages[at : at + _STAGE] for at in range(0, len(stages), _STAGE)]
    changes = tuple(i for i, row in enumerate(rows) if row[-1])
    of_best = ids[asked + 1 : asked + 1 + len(top)]

    def of_stages(table: Sequence[float], place: int) -> tuple[float, ...]:
        return tuple(table[i * count + place] for i in changes)

    def of_token(place: int) -> TokenNumbers:
        raw_logp, rank, luck, total = of_ids[place::count]
        return TokenNumbers(
            raw_logp, int(rank), luck, total, of_stages(logps, place), of_stages(criteria, place)
        )

    return ChoiceNumbers(
        chosen=int(chosen),
        margin=margin,
        took_best=bool(took_best),
        lead=top[0] - top[1] if left > 1 else nan,
        left=int(left),
        chance=chance,
        entropy=entropy,
        columns=dict(zip(columns, own, strict=False)),
        changes=changes,
        stages=tuple(_stage_numbers(rows[i]) for i in changes),
        tokens={token: of_token(place) for place, token in enumerate(ids)},
        best=tuple(token for token, total in zip(of_best, top, strict=True) if total > -inf),
        likeliest=tuple(ids[asked + 1 + len(top) :]),
    )


def _stage_numbers(row: Sequence[float]) -> StageNumbers:
    kept, removed, mass, edge, adds, _ = row
    return StageNumbers(int(kept), int(removed), mass, edge, adds > 0)


def _add_luck(final: Tensor, luck: Callable[[Tensor], Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Adds noise to logits `[V]` as a draw does; returns the sums, and the noise of tokens `[N]`.

    A CPU looks at those alone that are left: it is the same and cheaper.
    """
    import torch

    if final.device.type == "cpu":
        left = (final > -inf).nonzero()[:, 0]
        return final.index_put((left,), final[left] + luck(left)), luck
    noise = luck(torch.arange(len(final), device=final.device))
    return final + noise, noise.__getitem__


def _stages(trace: Trace, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes of each stage `_STAGE` numbers, and of each token what it left and decided by, `[S, N]`."""
    import torch

    if not trace.changes:
        nothing = ids[:0].float()
        return nothing, nothing, nothing
    before = torch.stack([each.before[0] for each in trace.changes])
    after = torch.stack([each.after[0] for each in trace.changes])
    gone = (after == -inf) & (before > -inf)
    mass = before.softmax(-1).where(gone, 0.0).sum(-1)
    nothing, always = after.new_full((1,), nan), after.new_ones(1)
    added, adds = _added(before, after)
    edges, differs, criteria = [], [], []
    for each, own in zip(trace.changes, added[:, ids], strict=True):
        bound = None if each.criterion is None else each.criterion.bound
        edges.append(nothing if bound is None else bound[0, :1])
        differs.append(always if each.differs is None else each.differs[None].float())
        criteria.append(own if each.criterion is None else each.criterion.values[0, ids])
    columns = (after > -inf).sum(-1), gone.sum(-1), mass, torch.cat(edges), adds, torch.cat(differs)
    numbers = torch.stack([each.double() for each in columns], -1)
    return numbers, after.log_softmax(-1)[:, ids], torch.stack(criteria)


def _added(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Computes what stages added to the logits of the tokens that they left, and which of them did.

    One that adds the same to all changes no probability; one that only removes adds 0.

    Args:
        before: float32 `[S, V]`, logits in front of each stage.
        after: float32 `[S, V]`, those behind it.

    Returns:
        float32 `[S, V]` (nats), NaN where a token is gone and for stages that added nothing; bool `[S]`.
    """
    removed, added = after == -inf, after - before
    adds = added.masked_fill(removed, -inf).amax(-1) - added.masked_fill(removed, inf).amin(-1) > _SHIFT
    return added.masked_fill(removed | ~adds[:, None], nan), adds
