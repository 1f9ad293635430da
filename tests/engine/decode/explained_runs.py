"""Explains every token of runs of random models, and holds the answers to the records of the runs."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui import decoders
from edge_tui.engine.events import Explained, Failed
from edge_tui.engine.port import Engine, ModelSpec, Question, Request
from edge_tui.util.sanitise import visible
from tests.engine.decode.explaining import add_up
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import watch
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_tui.engine.explanation import Explanation

PROMPT = (*range(40, 60), *range(40, 52))
VALUES: dict[str, dict[str, object]] = {
    "auto": {"do_sample": "on"},
    "bad_words": {"bad_words": ("the", "a")},
    "contrastive": {"sample": "on"},
    "dry": {"dry_multiplier": 3.0},
    "logit_bias": {"logit_bias": ("#77=3", "#90=-100")},
    "adaptive_p": {"adaptive_target": 0.3},
    "quadratic": {"smoothing_factor": 0.2},
    "cfg": {"negative": "a b"},
}
"""Values under which a strategy does something, where its defaults do nothing."""
SAMPLERS = [each.name for each in decoders.strategies() if each.kind == "sample"]
CHAINS = ["dry+typical+temperature+min_p", "top_k+xtc+xtc#2", "cad:dry+min_p"]
AT_ONCE = 50
"""Questions that wait in the engine's queue, so that it is never waited for between two of them."""


def make_models(folder: Path) -> dict[str, ModelSpec]:
    """Makes three models of one vocabulary that never end an answer; returns them by role."""
    for role, std in (("model", 0.2), ("amateur", 0.198), ("draft", 0.15)):
        endless = {"eos_token_id": TOKENS + 9}
        make_checkpoint(folder / role, context=1280, std=std, seed=9, generation=endless, extra=endless)
        (folder / role / "tokenizer_config.json").write_text("{}")
    return {role: ModelSpec(str(folder / role), "float32", "cpu") for role in ("model", "amateur", "draft")}


def request_of(strategy: str, length: int, seed: int = 11) -> Request:
    """A run with a temperature above 1, so that many tokens are left to luck."""
    names = {param.name for param in decoders.find(strategy).params}
    values = VALUES.get(strategy, {}) | ({"temperature": 1.4} if "temperature" in names else {})
    return Request("", strategy, values, seed=seed, ids=PROMPT, max_length=length)


def ask_all(engine: Engine, questions: Sequence[Question]) -> Iterator[Explanation]:
    """Asks questions, some at once, and yields the answers in order."""
    for start in range(0, len(questions), AT_ONCE):
        numbers = [engine.explain(question) for question in questions[start : start + AT_ONCE]]
        answers: dict[int, Explanation] = {}

        def poll(numbers: list[int] = numbers, answers: dict[int, Explanation] = answers) -> bool:
            for event in engine.poll():
                assert not isinstance(event, Failed), event
                if isinstance(event, Explained):
                    answers[event.question] = event.explanation
            return answers.keys() >= set(numbers)

        until(poll, 60.0)
        yield from map(answers.__getitem__, numbers)


def check_run(engine: Engine, strategy: str, length: int, seed: int, **more: Any) -> None:
    """Explains every token of a run, from its record alone; the run's own record is the measure.

    Args:
        engine: An engine with the models of `make_models`.
        strategy: Of the run.
        length: Of the run.
        seed: Of the run.
        more: Of the questions.
    """
    request = request_of(strategy, length, seed)
    run = watch(engine, request)
    names = ("raw_logp", "final_logp", "margin", "candidate_count", "entropy")
    ids, (raw, final, margins, counts, entropies) = run.ids, map(run.column, names)
    assert len(ids) == length
    logps = tuple(zip(raw, final, strict=True))
    questions = [
        Question(replace(request, prefix=tuple(ids[:index]), prefix_logps=logps[:index]), ids[index], **more)
        for index in range(length)
    ]
    for index, why in enumerate(ask_all(engine, questions)):
        add_up(why)
        assert why.exactness == "own"
        assert why.token == ids[index]
        assert abs(why.candidates[0].raw_logp - raw[index]) < 1e-3
        assert abs(why.chance - exp(final[index])) < 1e-3
        assert why.margin == pytest.approx(margins[index], abs=1e-3)
        assert why.candidate_count == counts[index]
        assert abs(why.entropy - entropies[index]) < 1e-3
        assert visible(why.candidates[0].text) in why.sentence
