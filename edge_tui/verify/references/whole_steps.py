"""Computes whole steps in float64: greedy, auto, contrastive; sampling by a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log
from typing import Any

import numpy as np

from edge_tui.verify.outcome import Context, Outcome, outcome
from edge_tui.verify.references.basics import BASICS, argmax
from edge_tui.verify.references.chains import STAGES, compose, sampling
from edge_tui.verify.references.kinds import StepReference, Streams, Values
from edge_tui.verify.references.mathematics import near, surprise


def _greedy(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    (penalised,) = compose(("penalties",), streams["model"], v, context)
    return [argmax(penalised.logits)]


def _greedy_arguments(v: Values) -> Mapping[str, Any] | None:
    if v["presence_penalty"] or v["frequency_penalty"]:
        return None
    return {"do_sample": False, "repetition_penalty": v["repetition_penalty"]}


_WARPERS = ("temperature", "top_k", "top_p", "min_p", "typical")


def _auto(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    if not v["do_sample"]:
        return _greedy(streams, v, context)
    return compose(("penalties", *_WARPERS), streams["model"], v, context)


def _auto_arguments(v: Values) -> Mapping[str, Any] | None:
    if v["presence_penalty"] or v["frequency_penalty"]:
        return None
    if not v["do_sample"]:
        return {"do_sample": False, "repetition_penalty": v["repetition_penalty"]}
    if not v["temperature"] or not v["top_p"]:
        return None  # values that generate() refuses
    numbers = ("repetition_penalty", "temperature", "top_p", "min_p", "typical_p")
    return {"do_sample": True, "top_k": int(v["top_k"]), **{name: v[name] for name in numbers}}


LI2022, OBRIEN2023 = 0, 1
_SEED_HEAD = 10
_SURE = 0.02
"""Nats: the seed's formula divides by the amateur's log-probability, and rounding decides below this."""


def _contrastive(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    """Scores by the published formulas; final logits are the scores, tempered where they are drawn from."""
    (penalised,) = compose(("penalties",), streams["model"], v, context)
    expert, amateur = penalised.logits, streams["amateur"]
    with np.errstate(invalid="ignore"):
        if v["formula"] == LI2022:
            score = -surprise(expert) + v["strength"] * surprise(amateur / v["amateur_temperature"])
        elif v["formula"] == OBRIEN2023:
            score = (1 + v["beta"]) * expert - v["beta"] * amateur
        else:
            score = -surprise(expert) / (-surprise(amateur) + 1e-9)
    if v["formula"] in (LI2022, OBRIEN2023):
        floor = expert.max() + log(v["alpha"])
        kept, doubt = expert >= floor, near(expert, floor, float(np.abs(expert.max())))
        doubt &= expert < expert.max()
    else:
        edge = np.sort(expert)[-min(_SEED_HEAD, len(expert))]
        kept = (expert >= edge) & (expert > -inf)
        doubt = near(expert, float(edge)) & (expert != edge) if edge > -inf else np.zeros_like(kept)
        doubt |= kept & (surprise(amateur) < _SURE)
    score = np.where(kept | doubt, score, -inf)
    found = outcome(np.where(kept, score, -inf), kept, doubt)
    if not v["sample"]:
        return [found]
    if v["temperature"] < 1e-5:
        return [argmax(found.logits)]
    return [replace(found, logits=found.logits / v["temperature"])]


STEPS: dict[str, StepReference] = {
    **{name: sampling(name) for name in STAGES if name not in BASICS},
    "greedy": StepReference(_greedy, generate=_greedy_arguments, sampled=None),
    "auto": StepReference(_auto, generate=_auto_arguments, sampled={"do_sample": 1.0}),
    "contrastive": StepReference(
        _contrastive,
        sampled={"sample": 1.0},
        disagreements=(
            "Where the amateur is sure of a token, seed divides by almost 0: there rounding decides.",
        ),
    ),
}
"""Whole steps, by the names of strategies."""
