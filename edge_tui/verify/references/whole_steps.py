"""Computes whole steps in float64: greedy, auto, contrastive; sampling by a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log
from typing import Any

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome, rounding
from edge_tui.verify.references.basics import ARGMAX_BELOW, BASICS, argmax
from edge_tui.verify.references.chains import STAGES, compose, sampling
from edge_tui.verify.references.kinds import RunReference, StepReference, Streams, Values
from edge_tui.verify.references.mathematics import near, surprise
from edge_tui.verify.references.streams import STREAMS, contrast, largest


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


LI2022, OBRIEN2023, SEED = range(3)
_SEED_HEAD = 10
_SURE = 0.02
"""Nats: the seed's formula divides by the amateur's log-probability, and rounding decides below this."""


def _contrastive(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    """Scores by the published formulas; final logits are the scores, tempered where they are drawn from."""
    (penalised,) = compose(("penalties",), streams["model"], v, context)
    expert, amateur = penalised.logits, streams["amateur"]
    tau = v["amateur_temperature"] if v["formula"] == LI2022 else 1.0
    says, heard = -surprise(expert), -surprise(amateur / tau)
    heard = np.where(heard > -inf, heard, says - contrast(says, heard))
    unit = rounding(len(expert))
    by_expert, by_amateur = unit * largest(expert), unit * largest(amateur / tau)
    with np.errstate(invalid="ignore"):
        if v["formula"] == LI2022:
            score = says - v["strength"] * heard
            error = np.asarray(by_expert + v["strength"] * by_amateur)
        elif v["formula"] == OBRIEN2023:
            score = expert + v["beta"] * contrast(expert, amateur)
            error = np.asarray((1 + v["beta"]) * by_expert + v["beta"] * by_amateur)
        else:
            score = says / (heard + 1e-9)
            error = (by_expert + np.abs(score) * by_amateur) / np.maximum(-heard, _SURE)
    if v["formula"] in (LI2022, OBRIEN2023):
        floor = expert.max() + log(v["alpha"])
        kept, doubt = expert >= floor, near(expert, floor, float(np.abs(expert.max())))
        doubt &= expert < expert.max()
    else:
        edge = np.sort(expert)[-min(_SEED_HEAD, len(expert))]
        kept = (expert >= edge) & (expert > -inf)
        doubt = near(expert, float(edge)) & (expert != edge) if edge > -inf else np.zeros_like(kept)
        doubt |= kept & (heard > -_SURE)
    score = np.where(kept | doubt, score, -inf)
    found = outcome(np.where(kept, score, -inf), kept, doubt)
    if not v["sample"]:
        return [found]
    if v["temperature"] < ARGMAX_BELOW:
        if v["formula"] == SEED:
            score = np.where(kept & (heard > -_SURE), score.max(), score)
        return [argmax(score, (expert, amateur), doubt, error)]
    return [replace(found, logits=found.logits / v["temperature"])]


def _dola(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    """Subtracts the log-probabilities of the early layer that differs most, as the authors' code measures."""
    (penalised,) = compose(("penalties",), streams["model"], v, context)
    last = -surprise(penalised.logits)
    layers = [-surprise(z) for name, z in streams.items() if name.startswith("early ")]
    measured = [_reversed_divergence(last, each) for each in layers]
    floor = last.max() + log(v["relative_top"])
    kept, doubt = last >= floor, near(penalised.logits, floor - last.max() + penalised.logits.max())
    doubt &= last < last.max()
    outcomes = []
    for layer, found in zip(layers, measured, strict=True):
        if found < max(measured) * (1 - _SAME_DIVERGENCE) - _SAME_DIVERGENCE:
            continue  # rounding decides among layers that differ equally
        score = np.where(kept | doubt, contrast(last, layer), -inf)
        each = outcome(np.where(kept, score, -inf), kept, doubt)
        if v["temperature"] < ARGMAX_BELOW:
            error = rounding(len(last)) * largest(last, layer)
            outcomes.append(argmax(score, (last, layer), doubt, error))
        else:
            outcomes.append(replace(each, logits=each.logits / v["temperature"]))
    return outcomes


_SAME_DIVERGENCE = 1e-5


def _reversed_divergence(last: Float64, early: Float64) -> float:
    mean = (np.exp(last) + np.exp(early)) / 2
    there = (last > -inf) & (early > -inf) & (mean > 0)
    m, p, q = mean[there], last[there], early[there]
    return float((m * (np.log(m) - (p + q) / 2)).sum())


def _dola_values(options: Mapping[str, Any]) -> Values | None:
    halves = {"low": 0.0, "high": 1.0}
    layers = options["dola_layers"]
    return {"dola_layers": halves[layers]} if isinstance(layers, str) else None


STEPS: dict[str, StepReference] = {
    **{name: sampling(name) for name in STAGES if name not in BASICS},
    **STREAMS,
    "greedy": StepReference(_greedy, generate=_greedy_arguments, sampled=None),
    "auto": StepReference(_auto, generate=_auto_arguments, sampled={"do_sample": 1.0}),
    "dola": StepReference(
        _dola,
        runs=RunReference("dola", _dola_values),
        disagreements=(
            "The paper measures layers by the Jensen-Shannon divergence; its authors' code, transformers and"
            " we have KL's arguments the other way round.",
        ),
    ),
    "contrastive": StepReference(
        _contrastive,
        sampled={"sample": 1.0},
        disagreements=(
            "Where the amateur is sure of a token, seed divides by almost 0: there rounding decides.",
        ),
    ),
}
"""Whole steps, by the names of strategies."""
