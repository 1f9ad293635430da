"""Two runs that one thread decodes in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from edge_tui.engine.events import Event, Failed, Finished, Loaded, Started, TokenBatch, Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from tests.engine.decode.explaining import explain
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import Watched, watch
from tests.waiting import until

LENGTH = 60
FIELDS = ("id", "raw_logp", "final_logp", "rank", "entropy", "top_ids", "top_logp", "final_ids", "text")


def request(strategy: str, **values: float) -> Request:
    return Request("the quick brown fox", strategy, values, seed=5, max_length=LENGTH)


def ended(events: Sequence[Event], *runs: int) -> bool:
    return {event.run for event in events if isinstance(event, Finished | Failed)} >= set(runs)


def watch_pair(
    engine: LocalEngine, first: Request, second: Request, seconds: float = 60.0
) -> tuple[Watched, Watched, list[Event]]:
    """Decodes two requests in turn; returns each one's events, and all of them in their order."""
    one = engine.submit(first)
    two = engine.submit(second, beside=one)
    seen: list[Event] = []
    until(lambda: seen.extend(engine.poll()) or ended(seen, one, two), seconds)
    own = [Watched(run, [e for e in seen if getattr(e, "run", None) == run]) for run in (one, two)]
    return own[0], own[1], seen


def alone(engine: LocalEngine, request: Request) -> Watched:
    """Decodes a request by itself, with nothing of its prompt read before."""
    watch(engine, replace(request, prompt="0", max_length=1))
    return watch(engine, request)


def record(seen: Watched) -> list[list]:
    rows = seen.started.rows
    return [[str(value) for value in seen.column(name, row)] for name in FIELDS for row in range(rows)]


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "draft", arch="qwen2", seed=4)


PAIRS = [
    ("top_k", "top_p"),
    pytest.param("beam", "mirostat", marks=pytest.mark.proof),
    pytest.param("top_p", "top_p", marks=pytest.mark.proof),
    pytest.param("speculative", "contrastive", marks=pytest.mark.proof),
    pytest.param("cfg", "dola", marks=pytest.mark.proof),
    pytest.param("contrastive_search", "greedy", marks=pytest.mark.proof),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_runs_in_turn_are_what_each_is_alone(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, draft: Path, one: str, other: str
) -> None:
    models = {"model": checkpoint, "expert": checkpoint, "amateur": draft, "draft": draft}
    engine = open_engine(**models)
    first, second, seen = watch_pair(engine, request(one), request(other))
    turns = [run for run, _ in groupby(event.run for event in seen if isinstance(event, TokenBatch))]
    assert len(turns) > 2  # neither waited for the other's end
    # The contexts of the first are kept, and are still its own.
    again = watch(engine, request(one))
    assert again.started.reused_tokens >= again.started.prompt_tokens - 1
    assert again.ids == first.ids
    assert record(alone(engine, request(one))) == record(first)
    assert record(alone(engine, request(other))) == record(second)


@pytest.mark.parametrize(
    ("known", "live"),
    [
        ("nothing", False),
        ("the prompt", True),
        ("the prompt and its layers", True),
        pytest.param("nothing", True, marks=pytest.mark.proof),
        pytest.param("the prompt", False, marks=pytest.mark.proof),
        pytest.param("the prompt and its layers", False, marks=pytest.mark.proof),
    ],
)
def test_the_prompt_is_read_as_that_of_the_run_beside_which_it_is(
    engine: LocalEngine, known: str, live: bool
) -> None:
    if known != "nothing":
        watch(engine, request("greedy" if known == "the prompt" else "dola"))
    one, other = request("top_p"), request("min_p", min_p=0.0)
    if live:
        first, second, _ = watch_pair(engine, one, other)
    else:
        first = watch(engine, one)
        number = engine.submit(other, beside=first.run)
        seen: list[Event] = []
        until(lambda: seen.extend(engine.poll()) or ended(seen, number))
        second = Watched(number, seen)
    whole = first.started.prompt_tokens
    # An output with layers is no other run's, and so the last token is read alone.
    reused = {"nothing": 0, "the prompt": whole, "the prompt and its layers": whole - 1}
    assert first.started.reused_tokens == reused[known]
    # To the last bit, up to the parting: their strategies differ, but not the model's numbers.
    same = common_length(first.ids, second.ids) + 1
    assert same > 1
    for name in ("raw_logp", "entropy", "top_logp"):
        mine, its = (seen.column(name)[: same - (name == "raw_logp")] for seen in (first, second))
        assert [str(each) for each in mine] == [str(each) for each in its]
    # Both are explained by their own numbers.
    for seen, asked in ((first, one), (second, other)):
        assert explain(engine, asked, seen, same).epsilon == 0


def common_length(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


def test_a_run_joins_one_that_is_under_way_and_stays_when_that_is_stopped(engine: LocalEngine) -> None:
    own = watch(engine, request("top_p"))
    first = engine.submit(Request("the quick", "top_k", seed=5, max_length=100_000))
    seen: list[Event] = []
    until(lambda: seen.extend(engine.poll()) or any(isinstance(e, TokenBatch) for e in seen))
    second = engine.submit(request("top_p"), beside=first)
    until(lambda: seen.extend(engine.poll()) or [e for e in seen if isinstance(e, Started)][1:])
    assert not ended(seen, first)
    engine.cancel(first)
    until(lambda: seen.extend(engine.poll()) or ended(seen, first, second))
    assert Watched(second, [e for e in seen if getattr(e, "run", None) == second]).ids == own.ids


def test_a_run_beside_another_than_the_one_under_way_waits(engine: LocalEngine) -> None:
    ended_before = watch(engine, request("top_k")).run
    first = engine.submit(request("top_p"))
    second = engine.submit(request("min_p"), beside=ended_before)
    seen: list[Event] = []
    until(lambda: seen.extend(engine.poll()) or ended(seen, first, second))
    begun = [event.run for event in seen if isinstance(event, Started | Finished)]
    assert begun == [first, first, second, second]


def test_what_was_asked_for_between_two_runs_is_done_between_them(engine: LocalEngine) -> None:
    watch(engine, request("greedy"))
    first = engine.submit(request("top_p"))
    engine.unload("model")
    second = engine.submit(request("top_k"), beside=first)
    seen: list[Event] = []
    until(lambda: seen.extend(engine.poll()) or ended(seen, first, second))
    marks = [type(event) for event in seen if isinstance(event, Finished | Unloaded | Loaded)]
    assert marks == [Finished, Unloaded, Loaded, Finished]


def test_a_run_that_fails_beside_another_leaves_it_alone(engine: LocalEngine) -> None:
    first, second, _ = watch_pair(engine, request("top_p"), request("top_k", temperature=-3.0))
    assert second.failed.field == "temperature"
    assert len(first.ids) == LENGTH
