"""Writes explanations of tokens, and the questions that they answer, as JSON and reads them back.

Its fields are those of the dataclasses in `engine/explanation.py`. JSON knows no infinity and no NaN: such a
number is null, and reads as the one that the field has where there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import inf, isnan, nan
from typing import Any

from edge_tui.engine.explanation import Explanation
from edge_tui.engine.port import Question
from edge_tui.engine.remote.codec import write_request
from edge_tui.util.dataclass_json import build
from edge_tui.util.json_text import finite


def write_question(question: Question) -> dict[str, Any]:
    """Returns the body of `/explain` for a question."""
    return {
        **write_request(question.request),
        "token": question.token,
        "candidates": list(question.ids),
        "margin": finite(question.margin),
        "others": list(question.others),
        "model": question.model,
        "recorded": finite(dict(question.recorded)),
    }


def write_explanation(explanation: Explanation) -> dict[str, Any]:
    """Returns an explanation as JSON has it."""
    written: dict[str, Any] = finite(asdict(explanation))
    return written


def read_explanation(data: Mapping[str, Any]) -> Explanation:
    """Returns the explanation that `write_explanation` wrote.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the data is no explanation.
    """
    stages = [_filled(stage) for stage in data["stages"]]
    candidates = [_read_candidate(candidate) for candidate in data["candidates"]]
    read = build(Explanation, {**_filled(data), "stages": stages, "candidates": candidates})
    # Nothing comes second where one token was left.
    return replace(read, margin=inf) if isnan(read.margin) and read.candidate_count == 1 else read


def _read_candidate(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fills the nulls of a candidate: removed by a stage, or not drawn at all."""
    read = _filled(data)
    if isnan(read.get("sum", nan)) and not isnan(read.get("luck", nan)):
        read["sum"] = -inf
    read["logps"] = _numbers(data["logps"], -inf)
    read["criteria"] = _numbers(data["criteria"], nan)
    return read


def _filled(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: nan if value is None else value for name, value in data.items()}


def _numbers(values: Sequence[Any], empty: float) -> list[Any]:
    return [empty if value is None else value for value in values]
