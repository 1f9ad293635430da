"""A draft and its target on real contexts: proposals read, counted, taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_tui.engine.decode import generation as generation_module
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.speculation_gate import SpeculationGate
from edge_tui.engine.events import Noticed, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.engine.token_fields import KEPT
from tests.engine.watch import Watched, watch

PROMPT = "the quick brown fox"
PAIR = {"model": "expert", "draft": "amateur"}


@pytest.fixture(scope="module")
def demo() -> Iterator[LocalEngine]:
    engine = LocalEngine({role: ModelSpec(f"demo/{name}", "float32") for role, name in PAIR.items()})
    yield engine
    assert engine.close(60.0)


@pytest.fixture(scope="module")
def greedy(demo: LocalEngine) -> Watched:
    return _run(demo, "greedy")


def _run(engine: LocalEngine, strategy: str, length: int = 32, **values: float) -> Watched:
    return watch(engine, Request("import os\n", strategy, values, seed=1, max_length=length))


@pytest.mark.parametrize("lookahead", [1, 7])
def test_at_temperature_zero_the_target_speaks(demo: LocalEngine, greedy: Watched, lookahead: int) -> None:
    seen = _run(demo, "speculative", temperature=0, lookahead=lookahead)
    assert seen.ids == greedy.ids
    assert seen.text == greedy.text
    assert seen.finished.new_tokens == greedy.finished.new_tokens
    drafted = [row[0] for batch in seen.all(TokenBatch) for row in batch.extras]
    assert 0 < sum(drafted) < len(drafted)
    assert seen.column("raw_logp") == pytest.approx(greedy.column("raw_logp"), abs=1e-4)
    assert seen.column("step") == list(range(len(seen.ids)))


def test_a_model_that_drafts_for_itself_is_always_right(checkpoint: Path, open_engine: Callable) -> None:
    engine = open_engine()
    for role in ("model", "draft"):
        engine.assign(role, ModelSpec(str(checkpoint), precision="float32"))
    seen = watch(engine, Request(PROMPT, "speculative", {"temperature": 0.9}, seed=2, max_length=30))
    drafted = [row[0] for batch in seen.all(TokenBatch) for row in batch.extras]
    assert sum(drafted) >= 0.75 * len(drafted)


def test_no_two_tokens_share_their_random_numbers(checkpoint: Path, open_engine: Callable) -> None:
    """Of a nearly level distribution a token comes twice only where its random numbers do."""
    engine = open_engine(model=checkpoint, draft=checkpoint)
    values = {"temperature": 5.0, "lookahead": 4}
    seen = watch(engine, Request(PROMPT, "speculative", values, seed=2, max_length=40))
    assert len(seen.ids) > 20
    assert len(set(seen.ids)) > 0.8 * len(seen.ids)


def test_the_same_seed_gives_the_same_text_and_a_prefix_is_reused(demo: LocalEngine, greedy: Watched) -> None:
    first, second = _run(demo, "speculative", temperature=0.8), _run(demo, "speculative", temperature=0.8)
    assert first.ids == second.ids
    assert second.started.reused_tokens == second.started.prompt_tokens
    assert greedy.ids == _run(demo, "speculative", temperature=0).ids


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_without_a_draft_model_the_text_is_that_of_sampling(demo: LocalEngine, temperature: float) -> None:
    plain = _run(demo, "top_k", top_k=0, temperature=temperature)
    seen = _run(demo, "ngram", temperature=temperature, lookahead=3)
    assert seen.ids == plain.ids
    assert seen.text == plain.text
    drafted = [row[0] for batch in seen.all(TokenBatch) for row in batch.extras]
    assert 0 < sum(drafted) < len(drafted)
    assert seen.column("raw_logp") == pytest.approx(plain.column("raw_logp"), abs=1e-4)
    cut = len(plain.ids) // 2
    request = Request("import os\n", "ngram", {"temperature": temperature}, seed=1, max_length=32 - cut)
    assert watch(demo, replace(request, prefix=tuple(plain.ids[:cut]))).ids == plain.ids[cut:]


def test_it_says_how_many_proposals_were_taken(demo: LocalEngine) -> None:
    (notice,) = _run(demo, "speculative").all(Noticed)
    assert "accepted" in notice.message


def test_proposing_is_given_up_where_it_loses() -> None:
    """Steps that cost three times as much and give one token each; and steps that give four."""
    losing, winning = SpeculationGate(1.0, 3.0), SpeculationGate(1.0, 3.0)
    verdicts = [losing.update(4, 1) for _ in range(60)]
    assert next(gain for gain in verdicts if gain is not None) == pytest.approx(1 / 3)
    assert all(winning.update(4, 4) is None for _ in range(60))
    assert losing.acceptance == 0
    assert winning.acceptance == 0.75


def test_a_run_goes_on_where_the_draft_rests(demo: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy text does not change where the proposals end, and the end does not depend on the machine."""
    greedy = _run(demo, "greedy", 48)
    monkeypatch.setattr(Generation, "costs", lambda generation: (1.0, 100.0))
    monkeypatch.setattr(generation_module, "DEPTH", 3)
    runs = [_run(demo, "speculative", 48, temperature=t, lookahead=1) for t in (0, 1, 1)]
    assert all("Speculation is off" in run.all(Noticed)[0].message for run in runs)
    assert runs[0].ids == greedy.ids
    assert runs[1].ids == runs[2].ids
    assert len({run.finished.proposing_ended for run in runs[1:]}) == 1
    looked_up = _run(demo, "ngram", 48, temperature=0)
    assert "Speculation is off" in looked_up.all(Noticed)[0].message
    assert looked_up.ids == greedy.ids


def test_a_run_made_again_ends_proposing_where_it_did(
    demo: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is on record, and a request that names it is the same run however long steps take."""
    request = Request("import os\n", "speculative", {"lookahead": 1}, seed=4, max_length=48)
    monkeypatch.setattr(generation_module, "DEPTH", 3)
    monkeypatch.setattr(Generation, "costs", lambda generation: (1.0, 100.0))
    slow = watch(demo, request)
    ended = slow.finished.proposing_ended
    assert ended is not None
    assert ended > 0
    monkeypatch.setattr(Generation, "costs", lambda generation: (100.0, 1.0))
    fast = watch(demo, request)
    assert fast.finished.proposing_ended == -1
    assert fast.ids != slow.ids, "where proposing ends decides on what is drawn"
    again = watch(demo, replace(request, proposing_ends=ended))
    assert (again.ids, again.finished.proposing_ended) == (slow.ids, ended)
    monkeypatch.setattr(Generation, "costs", lambda generation: (1.0, 100.0))
    whole = watch(demo, replace(request, proposing_ends=-1))
    assert (whole.ids, whole.finished.proposing_ended) == (fast.ids, -1)
    never = watch(demo, replace(request, proposing_ends=0, max_length=6))
    assert never.finished.proposing_ended == 0
    assert not any(never.column("extras")[step][0] for step in range(len(never.ids)))
    assert watch(demo, Request("import os\n", "top_p", max_length=3)).finished.proposing_ended is None


@pytest.mark.parametrize("temperature", [0.9, pytest.param(0.0, marks=pytest.mark.proof)])
def test_each_position_records_its_own_margin_and_removals(demo: LocalEngine, temperature: float) -> None:
    """The text is that of sampling, and so are the numbers of each choice."""
    values = {"top_k": 5, "temperature": temperature}
    request = Request("import os\nimport", "ngram:top_k", values, seed=1, max_length=24)
    found = watch(demo, request)
    plain = watch(demo, replace(request, strategy="top_k"))
    assert found.ids == plain.ids
    assert any(extras[0] for extras in found.column("extras")), "some were proposed"
    np.testing.assert_allclose(found.column("margin"), plain.column("margin"), atol=2e-3)
    assert found.column("candidate_count") == plain.column("candidate_count")
    links = {1: 0, 2: 1} if temperature else {1: 0}  # the temperature's and top-k's: no penalties before
    for mine, sampled in zip(found.column("removing_stage"), plain.column("removing_stage"), strict=True):
        assert mine.tolist() == [links.get(stage, stage) for stage in sampled.tolist()]


def test_verdicts_on_proposals_have_no_margin(demo: LocalEngine) -> None:
    request = Request("import os\n", "speculative:top_k", {"top_k": 3}, seed=1, max_length=8)
    seen = watch(demo, request)
    assert np.isnan(seen.column("margin")).all()
    for ids, final, stages in zip(
        seen.column("top_ids"), seen.column("final_ids"), seen.column("removing_stage"), strict=True
    ):
        assert (stages == np.where(np.isin(ids, final), KEPT, 0)).all()
