"""Streams of one model are rows of one forward, and give the tokens and numbers of forwards of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Needs, Stream
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.stream_groups import StreamGroup, group_streams
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.decode.explaining import explain
from tests.engine.decode.test_explain_waits import assert_same
from tests.engine.models.references import TOLERANCE, checkpoint, deviation, flat, random_ids
from tests.engine.models.test_transformers_tier import make_other
from tests.engine.random_checkpoints import TOKENS, make_checkpoint, save_tokenizer
from tests.engine.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge_tui.engine.models.cache import FlatContext

LONG = tuple(20 + i * i % (TOKENS - 20) for i in range(300))
THREE = '''
"""Goes from one prompt towards a second and away from a third."""
from edge_tui.decoders.base import Decoder, Param, Stream, TextParam, last_logits


class Between(Decoder):
    """Adds the difference of two other prompts of one model."""

    name = "between"
    title = "between"
    summary = "Steers by two more prompts."
    streams = Stream("a", "model"), Stream("b", "model", "near"), Stream("c", "model", "far")
    params = (Param("weight", 2.0, 0.0, 9.0, "Higher steers more."), TextParam("far", help="Text to avoid."))

    def prompts(self, main, texts):
        return {"near": main.last(3), "far": main.with_system(texts["far"])}

    def logits(self, outs, s, p):
        a, b, c = (last_logits(outs[stream.name], s) for stream in self.streams)
        return a + p["weight"] * (b - c)
'''
TEXTS: dict[str, dict[str, Any]] = {
    "cfg": {"negative": "nobody had ever", "guidance_scale": 4.0},
    "cad": {"question": "nobody had", "cad_alpha": 3.0},
    "between": {"far": "nobody"},
}


class Engine(LocalEngine):
    """Counts the rows of its models' forwards; with `most` of 1 each stream has forwards of its own."""

    def __init__(self, folder: Path, precision: Any = "float32", most: int | None = None) -> None:
        self.rows: list[int] = []

        def loaded(*arguments: Any) -> LoadedModel:
            model = load(*arguments)
            inner: Any = model.model
            forward = inner.forward
            if most is not None:
                inner.caps = replace(inner.caps, unequal_rows=most)

            def counted(ctx: Any, ids: torch.Tensor) -> Any:
                self.rows.append(len(ids))
                return forward(ctx, ids)

            inner.forward = counted
            return model

        super().__init__({"model": ModelSpec(str(folder), precision, "cpu", context=1024)}, loaded)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a model that never ends an answer."""
    endless = {"eos_token_id": TOKENS + 9}
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_checkpoint(path, context=1024, seed=9, generation=endless, extra=endless)
    (path / "tokenizer_config.json").write_text("{}")
    return path


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def open_one(path: Path = folder, **options: Any) -> Engine:
        engines.append(Engine(path, **options))
        return engines[-1]

    yield open_one
    assert all(engine.close(10.0) for engine in engines)


@pytest.fixture
def between(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "between.py").write_text(THREE)
    decoders.load([tmp_path])
    yield
    decoders.load()


def request_of(strategy: str, ids: tuple[int, ...] = LONG, **changes: Any) -> Request:
    return replace(Request("", strategy, TEXTS[strategy], ids=ids, seed=5, max_length=12), **changes)


def same(got: Watched, wanted: Watched, bound: float = 1e-4) -> None:
    """Compares the tokens and numbers of two runs, of every row."""
    assert got.started.rows == wanted.started.rows
    for row in range(got.started.rows):
        assert got.column("id", row) == wanted.column("id", row)
        for name in ("raw_logp", "final_logp", "entropy", "top_logp"):
            difference = np.array(got.column(name, row)) - np.array(wanted.column(name, row))
            assert np.abs(difference).max() < bound, name


@pytest.mark.usefixtures("between")
@pytest.mark.parametrize("strategy", TEXTS)
def test_a_run_is_that_of_separate_forwards(strategy: str, opened: Callable[..., Engine]) -> None:
    """Prompts of one to three hundred tokens; samples, too, each of which has a row in every stream."""
    together, apart = opened(), opened(most=1)
    streams = len(decoders.find(strategy).streams)
    for ids, seed, samples in ((LONG, 5, 1), (LONG[:1], 6, 1), (LONG[:40], 7, 3), (LONG[:4], 8, 1)):
        request = request_of(strategy, ids, seed=seed, samples=samples)
        together.rows, apart.rows = [], []
        same(watch(together, request), watch(apart, request))
        assert set(together.rows) == {streams * samples}
        assert apart.rows == [samples] * 11 * streams
        assert len(together.rows) <= 12  # prompts of one token are read like a step


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_group_has_no_more_rows_than_the_model_takes(most: int, opened: Callable[..., Engine]) -> None:
    engine = opened(most=most)
    watch(engine, request_of("cfg", samples=2))
    assert set(engine.rows) == {4 if most == 4 else 2}


def test_streams_of_other_models_and_with_other_needs_are_forwards_of_their_own(folder: Path) -> None:
    one, other = (load(ModelSpec(str(folder), "float32", "cpu")).model for _ in range(2))
    streams = [Stream(name, role) for name, role in zip("abcd", ("x", "y", "x", "y"), strict=True)]
    models = {"x": one, "y": other}
    assert group_streams(streams, models, Needs(history=3, counts=True), 1) == [("a", "c"), ("b", "d")]
    for needs in (Needs(hidden=(1,)), Needs(early=(1,)), Needs(past=True)):
        assert group_streams(streams, models, needs, 1) == [("a",), ("b", "d"), ("c",)]
    assert group_streams(streams, {"x": one, "y": one}, Needs(), 1) == [("a", "b", "c", "d")]


def test_a_proposing_strategy_keeps_its_draft_apart(opened: Callable[..., Engine], folder: Path) -> None:
    engine = opened()
    engine.assign("draft", ModelSpec(str(folder), "float32", "cpu", context=1024))
    seen = watch(engine, Request("", "speculative", ids=LONG[:9], seed=1, max_length=12))
    assert len(seen.ids) == 12
    assert set(engine.rows) == {1}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_contexts_serve_the_next_run_whichever_way_it_groups_them(
    precision: str, opened: Callable[..., Engine]
) -> None:
    """What one strategy has read the next one finds: alone, beside others, and after an answer."""
    used, bound = opened(precision=precision), 1e-4 if precision == "float32" else 0.4
    first = watch(used, Request("", "greedy", ids=LONG[:200], max_length=6))
    more = (*LONG[:200], *first.ids, *LONG[:9])
    steps = [request_of("cfg", more), request_of("cad", LONG[:150]), request_of("cfg", more[:180])]
    steps += [Request("", "greedy", ids=LONG[:170], max_length=6)]
    for request, reused in zip(steps, (205, 150, 150, 170), strict=True):
        seen, fresh = watch(used, request), opened(precision=precision)
        wanted = watch(fresh, request)
        assert reused - 1 <= seen.started.reused_tokens <= reused
        for name in ("raw_logp", "entropy", "top_logp"):
            difference = np.array(seen.column(name)[0]) - np.array(wanted.column(name)[0])
            assert np.abs(difference).max() < bound, name
        assert precision != "float32" or seen.ids == wanted.ids


def test_an_answer_goes_on_and_takes_another_token(opened: Callable[..., Engine]) -> None:
    together, apart = opened(), opened(most=1)
    whole = watch(together, request_of("cfg"))
    for kept in (tuple(whole.ids[:5]), (*whole.ids[:5], whole.ids[7] + 1)):
        request = request_of("cfg", prefix=kept)
        got = watch(together, request)
        assert got.started.reused_tokens == len(LONG) + 5 - (len(kept) == 5)
        same(got, watch(apart, request))
        assert len(kept) > 5 or got.ids[:7] == whole.ids[5:]


def test_a_question_gives_the_groups_own_numbers(opened: Callable[..., Engine]) -> None:
    """In 16 bit too: the last token is read again by the forward of all rows that the run read it with."""
    engine = opened(precision="bfloat16")
    request = request_of("cfg", values={**TEXTS["cfg"], "temperature": 1.4})
    run = watch(engine, request)
    for index in (1, 6, 11):
        why = explain(engine, request, run, index)
        assert why.exactness == "own"
        assert why.candidates[0].raw_logp == pytest.approx(run.column("raw_logp")[index], abs=1e-5)


def test_what_does_not_fit_beside_the_old_contexts_is_read_again(folder: Path) -> None:
    model: Any = load(ModelSpec(str(folder), "float32", "cpu", context=1024)).model
    cache, keys, ids = PrefixCache(), [(1, 0), (1, 1)], [list(LONG[:40]), list(LONG[:3])]
    entry = cache.open(keys[0], model, ids[0], 100, 100)
    model.prefill(entry.context, torch.tensor([ids[0]]))
    entry.ids.extend(ids[0])
    make, tries = model.open, []

    def scarce(*arguments: Any) -> Any:
        tries.append(bool(cache))
        if cache:
            raise MemoryError
        return make(*arguments)

    model.open = scarce
    joint = cache.join(keys, model, ids, 100, 100)
    assert tries == [True, False]
    assert joint.length.tolist() == [0, 0]
    assert [cache[key].ids for key in keys] == [[], []]


def test_a_question_replays_the_forward_of_all_streams(
    opened: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that differ end in the same kept token, so that one captured step reads it in each stream."""
    joints: list[Any] = []
    join = PrefixCache.join

    def noted(*arguments: Any) -> Any:
        joints.append((join(*arguments), arguments[2]))
        return joints[-1][0]

    monkeypatch.setattr(PrefixCache, "join", noted)
    engine, request = opened(), request_of("cfg")
    run = watch(engine, request)
    plain = [explain(engine, request, run, index) for index in (0, 7)]
    joint, model = joints[0]
    replayed: list[int] = []

    def replay(ids: torch.Tensor) -> torch.Tensor:
        replayed.append(int(ids))
        logits: torch.Tensor = model.forward(joint, ids.expand(2, 1)).logits
        return logits

    joint.replay = replay
    again = [explain(engine, request, run, index) for index in (0, 7)]
    assert replayed == [run.ids[6]], "the prompts themselves end in different tokens"
    for one, other in zip(again, plain, strict=True):
        assert_same(one, other)


def test_rows_of_one_memory_leave_it_together(folder: Path) -> None:
    model: Any = load(ModelSpec(str(folder), "float32", "cpu", context=1024)).model
    cache, keys, ids = PrefixCache(), [(1, 0), (1, 1), (1, 2)], [[5, 6], [7], [8]]
    three = cache.join(keys, model, ids, 100, 100)
    assert cache.join(keys, model, ids, 90, 90) is three
    assert cache.joint(keys[:2]) is None
    two = cache.join(keys[:2], model, ids[:2], 100, 100)
    assert set(cache) == set(keys[:2])
    assert cache.joint(keys[:2]) is two
    cache.open(keys[1], model, [7, 8], 2000, 2000)
    assert set(cache) == {keys[1]}
    assert cache.joint(keys[:2]) is None


@torch.inference_mode()
@pytest.mark.parametrize("share", [False, True], ids=["copied", "shared"])
def test_rows_that_move_stay_with_their_prompt(share: bool, tmp_path: Path) -> None:
    """Two prompts with three rows each, of which beams take over one another's past."""
    model = flat(checkpoint(tmp_path, "mistral windowed"))
    joint, ids = model.open(2, 64), random_ids(2, 30)
    joint.share = share
    alone: list[FlatContext] = []
    for row, length in enumerate((20, 4)):
        model.prefill(joint.row(row), ids[row : row + 1, :length])
        root = model.open(1, 64)
        model.prefill(root, ids[row : row + 1, :length])
        alone.append(root.fork(3))
    group = StreamGroup(("a", "b"), model, joint, 3)
    rows = group.context = joint.fork(3)
    assert (rows.branches is not None) == share
    for at, parents in enumerate(([0, 0, 0], [2, 2, 0], [1, 0, 1])):
        tokens, parent = torch.arange(3)[:, None] * 7 + at, torch.tensor(parents)
        outputs = group.split(model.forward(rows, group.spread(tokens)))
        for name, ctx in zip("ab", alone, strict=True):
            assert deviation(outputs[name].logits, model.forward(ctx, tokens).logits) < TOLERANCE
            ctx.reorder(parent)
        group.reorder(parent)
    assert rows.lengths() == rows.length.tolist() == [23] * 3 + [7] * 3


def test_each_forwards_logits_are_found_again_in_their_own_memory(folder: Path) -> None:
    """Graphs of several ways to step are kept; each writes where its own choice reads."""
    model = load(ModelSpec(str(folder), "float32", "cpu", context=1024)).model
    for names in (("a",), ("a", "b", "c")):
        root = model.open(len(names), 16)
        group = StreamGroup(names, model, root, 2)
        group.context = root.fork(2)
        forwards = [model.forward(group.context, group.spread(torch.tensor([[7], [9]]))) for _ in range(2)]
        outputs = [group.split(each) for each in forwards]
        for forward, output in zip(forwards, outputs, strict=True):
            whole = group.logits(output)
            assert torch.equal(whole, forward.logits)
            assert whole.data_ptr() == forward.logits.data_ptr()
        if len(names) > 1:
            mixed = {**outputs[0], "c": outputs[1]["c"]}
            with pytest.raises(AssertionError, match="several forwards"):
                group.logits(mixed)


def test_the_other_tier_reads_streams_one_after_another_and_says_so(
    tmp_path: Path, opened: Callable[..., Engine]
) -> None:
    path = make_other(tmp_path / "other", "bloom")
    save_tokenizer(path)
    engine, ids = opened(path), tuple(range(40, 50))
    seen = watch(engine, Request("", "cfg", ids=ids, seed=1, max_length=6))
    assert set(engine.rows) == {1}
    assert any("a forward for each text" in notice for notice in seen.started.notices)
    seen = watch(engine, Request("", "greedy", ids=ids, max_length=2))
    assert not any("a forward for each text" in notice for notice in seen.started.notices)
