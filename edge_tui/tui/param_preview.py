"""Computes the effect of parameters on one token's recorded distribution. No torch in here.

Known are the twenty likeliest tokens with their log-probabilities, and how many others share the rest of
the probability; those are taken to be equally likely, which is near enough for a picture. The arithmetic is
that of `decoders/`, and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import exp, inf, isfinite, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_FILTERS = ("top_k", "top_p", "min_p", "typical_p")
_CONTRAST = ("formula", "alpha", "strength", "amateur_temperature", "beta", "sample")
PREVIEWABLE = frozenset({"temperature", "order", "do_sample", *_PENALTIES, *_FILTERS, *_CONTRAST})
"""Parameters whose effect can be shown on a single token's distribution."""
_NEUTRAL = {
    "temperature": 1.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_k": 0.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "strength": 0.0,
    "beta": 0.0,
    "amateur_temperature": 1.0,
    "do_sample": 1.0,
}
_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class Group:
    """Describes tokens that are treated alike: one, or all those beyond the recorded ones.

    Attributes:
        z: Logit (nats, up to a constant); −∞ where removed.
        many: Number of tokens.
        occurrences: Times that the answer holds it.
        repeated: True where prompt or answer hold it.
        amateur: Log-probability under the amateur, up to a constant, where that is known.
    """

    z: float
    many: int = 1
    occurrences: int = 0
    repeated: bool = False
    amateur: float | None = None


def groups(
    logp: Sequence[float],
    vocab: int,
    occurrences: Sequence[int] = (),
    amateur: Sequence[float | None] = (),
) -> list[Group]:
    """Builds a group for each recorded token, and one for the rest of the vocabulary.

    Args:
        logp: Log-probabilities of the recorded tokens, best first.
        vocab: Tokens in all; 0 where unknown, then there is no rest.
        occurrences: Times that the answer holds each.
        amateur: Log-probability of each under the amateur.
    """
    found = [
        Group(
            z,
            occurrences=occurrences[i] if occurrences else 0,
            repeated=bool(occurrences and occurrences[i]),
            amateur=amateur[i] if amateur else None,
        )
        for i, z in enumerate(logp)
    ]
    left = 1 - sum(map(exp, logp))
    if (many := vocab - len(found)) > 0 and left > 1e-9:
        found.append(Group(log(left / many), many))
    return found


def amateur_as_it_is(logp: float, recorded: Mapping[str, float]) -> float:
    """Converts the amateur's recorded number of a token to temperature 1, up to a shared constant.

    Args:
        logp: As it was recorded, with the score that it went into.
        recorded: The parameters then.
    """
    tempered = recorded.get("formula", 0.0) == 0
    return logp * recorded.get("amateur_temperature", 0.5) if tempered else logp


def shares(found: Sequence[Group]) -> list[float]:
    """Computes the probability of each group."""
    top = max((group.z for group in found), default=-inf)
    if top == -inf:
        return [0.0] * len(found)
    weights = [group.many * exp(group.z - top) for group in found]
    total = sum(weights)
    return [weight / total for weight in weights]


def has_neutral(name: str) -> bool:
    """Tells whether a parameter has a value at which it does nothing."""
    return name in _NEUTRAL


def without(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Sets one parameter to the value at which it does nothing."""
    return dict(values) | {name: _NEUTRAL[name]} if name in _NEUTRAL else dict(values)


def apply(found: Sequence[Group], values: Mapping[str, float], chain: Sequence[str] = ()) -> list[Group]:
    """Applies a strategy's parameters to a distribution; unknown names do nothing.

    Args:
        found: The distribution.
        values: The parameters.
        chain: Names of parameters in the order of a typed chain's stages.
    """
    if chain:
        after = list(found)
        for name in chain:
            after = _stage(after, name, values)
        return after
    after = [_penalised(group, values) for group in found]
    if "formula" in values:
        after = _contrasted(after, values)
        stages: list[Callable[[list[Group]], list[Group]]] = []
        if values.get("sample", 0.0) > 0:
            stages.append(lambda z: _tempered(z, values.get("temperature", 1.0)))
    else:
        tau = values.get("temperature", 1.0)
        first = values.get("order", 0.0) < 1
        stages = [lambda z: _tempered(z, tau)] if first else []
        stages += [partial(_filtered, name=name, value=values[name]) for name in _FILTERS if name in values]
        stages += [] if first else [lambda z: _tempered(z, tau)]
        if values.get("do_sample", 1.0) < 1:
            stages = [_best]
    for stage in stages:
        after = stage(after)
    return after


def _stage(found: list[Group], name: str, values: Mapping[str, float]) -> list[Group]:
    """Applies the stage of a chain that has a parameter; a stage of several goes by its first one."""
    if name == _PENALTIES[0]:
        return [_penalised(group, values) for group in found]
    if name == "temperature":
        return _tempered(found, values[name])
    return _filtered(found, name, values[name]) if name in _FILTERS else found


def _penalised(group: Group, values: Mapping[str, float]) -> Group:
    z, theta = group.z, values.get("repetition_penalty", 1.0)
    if group.repeated and theta != 1:
        z = z / theta if z > 0 else z * theta
    z -= values.get("presence_penalty", 0.0) * (group.occurrences > 0)
    z -= values.get("frequency_penalty", 0.0) * group.occurrences
    return replace(group, z=z)


def _tempered(found: list[Group], tau: float) -> list[Group]:
    if tau < _GREEDY_BELOW:
        return _best(found)
    return [replace(group, z=group.z / tau) for group in found]


def _best(found: list[Group]) -> list[Group]:
    """Keeps the likeliest alone; of several that are alike, the first."""
    top = max(range(len(found)), key=lambda i: found[i].z)
    return [replace(group, many=1) if i == top else replace(group, z=-inf) for i, group in enumerate(found)]


def _filtered(found: list[Group], name: str, value: float) -> list[Group]:
    """Removes the groups that one filter cuts."""
    if value == _NEUTRAL[name]:
        return found
    share = shares(found)
    each = [part / group.many for part, group in zip(share, found, strict=True)]
    if name == "min_p":
        best = max(each)
        return [
            group if p >= value * best else replace(group, z=-inf)
            for group, p in zip(found, each, strict=True)
        ]
    if name == "typical_p":
        entropy = -sum(part * log(p) for part, p in zip(share, each, strict=True) if p > 0)
        far = [abs(-log(p) - entropy) if p > 0 else inf for p in each]
    else:
        far = [-p for p in each]
    weight = [1.0] * len(found) if name == "top_k" else each
    return _nearest(found, far, weight, value)


def _nearest(found: list[Group], far: list[float], weight: list[float], enough: float) -> list[Group]:
    """Keeps the nearest until their weight is enough; what lies as far as the last one stays too."""
    counts: dict[int, int] = {}
    total, edge = 0.0, inf
    for i in sorted(range(len(found)), key=lambda i: far[i]):
        if total >= enough - 1e-9 and far[i] > edge + 1e-12:
            break
        if found[i].many == 1:
            counts[i] = 1
        else:
            # Of the rest, which is not truly alike, only as many as it takes.
            lacking = max(enough - total, 0.0)
            counts[i] = (
                min(found[i].many, max(int(lacking / weight[i] + 0.999999), 1)) if weight[i] > 0 else 0
            )
        total += counts[i] * weight[i]
        edge = far[i]
    return [
        replace(group, many=counts[i]) if counts.get(i) else replace(group, z=-inf)
        for i, group in enumerate(found)
    ]


def _contrasted(found: list[Group], values: Mapping[str, float]) -> list[Group]:
    """Scores the tokens that the expert finds plausible, where the amateur is known."""
    top = max(group.z for group in found)
    formula = int(values["formula"])
    if formula == 2:
        # As published with this score: the ten likeliest, and no threshold.
        edge = sorted((group.z for group in found), reverse=True)[:10][-1]
    else:
        edge = top + log(values.get("alpha", 0.1))
    expert = _normal(found)
    scored = []
    for group, logp in zip(found, expert, strict=True):
        plausible = group.z >= edge and group.amateur is not None and isfinite(group.amateur)
        z = -inf
        if plausible and group.amateur is not None:
            if formula == 0:
                z = logp - values.get("strength", 1.0) * group.amateur / values.get(
                    "amateur_temperature", 0.5
                )
            elif formula == 1:
                beta = values.get("beta", 0.5)
                z = (1 + beta) * logp - beta * group.amateur
            else:
                z = logp / (group.amateur + 1e-9)
        scored.append(replace(group, z=z))
    return scored


def _normal(found: list[Group]) -> list[float]:
    """Computes the log-probability of a token of each group."""
    top = max(group.z for group in found)
    total = log(sum(group.many * exp(group.z - top) for group in found)) + top
    return [group.z - total for group in found]
