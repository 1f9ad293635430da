"""Every stage that acts at a token has a number of it, from which the new probabilities can be computed."""

from __future__ import annotations

from dataclasses import replace
from math import exp, inf, isnan, log, nan

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Step
from edge_tui.engine.decode.choice_numbers import gather
from edge_tui.engine.decode.explain import explain_token
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.stage_trace import StageChange, Trace
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.models.loader import load
from edge_tui.engine.models.manager import ModelManager
from edge_tui.engine.port import ModelSpec, Question
from tests.engine.decode.explained_runs import CHAINS, PROMPT, make_models, request_of
from tests.engine.random_checkpoints import TOKENS

VALUES: dict[str, dict[str, object]] = {
    "cad": {"question": "a b"},
    "dynamic_temperature": {"temperature": 1.0},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
    "temperature": {"temperature": 1.4},
}
"""Values under which a stage acts, beside those of `request_of`."""
NAMES = [each.name for each in decoders.strategies() if each.kind == "sample" and not each.lag]
ADDITIVE = ("Δz", "Δ log p")


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> ModelManager:
    specs: dict[str, ModelSpec] = make_models(tmp_path_factory.mktemp("models"))
    specs["expert"] = specs["amateur"]
    specs["amateur"] = specs["draft"]
    manager = ModelManager(lambda _: None, load, specs)
    for role in specs:
        manager.get(role, lambda: False)
    return manager


def explained(manager: ModelManager, name: str) -> Explanation:
    """Explains the next token of the prompt, with every token of the vocabulary."""
    request = request_of(name, 8)
    values = {**request.values, **VALUES.get(name, {})}
    prefix = PROMPT[:8]
    request = replace(request, values=values, prefix=prefix, prefix_logps=((-2.0, -1.5),) * len(prefix))
    question = Question(request, 77, ids=tuple(range(TOKENS)))
    return explain_token(question, manager, (), PrefixCache(), lambda: False)


@pytest.mark.parametrize(
    "name", [*NAMES, *CHAINS, *(each for each in VALUES if each not in NAMES), "penalties+dry", "cfg:dry"]
)
def test_a_stage_that_changes_probabilities_has_a_number(name: str, manager: ModelManager) -> None:
    """The numbers that are added, divided by, or compared with an edge give the probabilities behind it."""
    why = explained(manager, name)
    vocabulary = {each.id: each for each in why.candidates}
    assert len(vocabulary) == TOKENS
    before = {token: each.raw_logp for token, each in vocabulary.items()}
    for i, stage in enumerate(why.stages):
        after = {token: each.logps[i] for token, each in vocabulary.items()}
        own = {token: each.criteria[i] for token, each in vocabulary.items()}
        left = [token for token in after if after[token] > -inf]
        shares = {token: before[token] for token in left}
        expected = normalised(shares)
        changed = max(abs(expected[token] - exp(after[token])) for token in left) > 1e-6
        if changed:
            assert stage.criterion, stage
        if stage.criterion in ADDITIVE:
            expected = normalised({token: shares[token] + own[token] for token in left})
        elif stage.criterion == "T" and len(left) > 1:
            expected = normalised({token: shares[token] / own[token] for token in left})
        elif changed:
            assert stage.name in ("contrastive", "dola")  # scores, which have columns or layers of their own
            before = after
            continue
        assert all(abs(expected[token] - exp(after[token])) < 1e-5 for token in left), stage
        if stage.criterion:
            for token in left:
                assert log(expected[token]) == pytest.approx(after[token], rel=1e-4, abs=1e-4)
        if not stage.criterion:
            assert all(map(isnan, own.values()))
        before = after


def normalised(logs: dict[int, float]) -> dict[int, float]:
    """Divides the exponentials of numbers by their sum."""
    most = max(logs.values())
    total = log(sum(exp(each - most) for each in logs.values())) + most
    return {token: exp(each - total) for token, each in logs.items()}


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("cfg", "Δ log p"),
        ("cad", "Δ log p"),
        ("dexperts", "Δ log p"),
        ("dry", "Δz"),
        ("watermark", "Δz"),
        ("logit_bias", "Δz"),
        ("quadratic", "Δz"),
        ("adaptive_p", "Δz"),
        ("penalties", "Δz"),
        ("dynamic_temperature", "T"),
        ("temperature", "T"),
        ("no_repeat_ngram", ""),
        ("min_new_tokens", ""),
        ("bad_words", ""),
    ],
)
def test_what_is_added_divided_and_removed_is_told_apart(
    name: str, criterion: str, manager: ModelManager
) -> None:
    why = explained(manager, name)
    found = next(each for each in why.stages if each.name == name and not each.neutral)
    assert found.criterion == criterion
    assert isnan(found.edge)


def test_a_watermark_adds_its_bias_to_some_and_nothing_to_others(manager: ModelManager) -> None:
    why = explained(manager, "watermark")
    at = next(i for i, stage in enumerate(why.stages) if stage.name == "watermark")
    assert {round(each.criteria[at], 4) for each in why.candidates} == {0.0, 2.0}


@pytest.mark.parametrize(
    ("added", "adds"), [((3.0, 3.0, 3.0), False), ((0.0, 0.0, 0.0), False), ((0.0, -2.0, 0.0), True)]
)
def test_what_all_tokens_get_alike_is_no_number(added: tuple[float, ...], adds: bool) -> None:
    """The stage removes the last token as well, which then has none."""
    before = torch.tensor([[1.0, 2.0, 0.5, 0.0]])
    after = before + torch.tensor([[*added, -inf]])
    step, change = Step(torch.tensor([0]), after), StageChange("own", "own", before, after)
    numbers = gather(Trace(step, (change,), before, after, None, None, False), 0, (1, 2, 3), None)
    assert numbers.stages[0].adds == adds
    found = [numbers.tokens[token].criteria[0] for token in range(4)]
    assert found == pytest.approx([*(added if adds else [nan] * 3), nan], nan_ok=True)
