"""The transformers tier over buffers that keep their addresses: the logits of one full forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from transformers.models.bloom import modeling_bloom

from edge_tui.decoders.base import Needs
from edge_tui.engine.models.base import CapturableContext, ContextFull, ResumableContext
from edge_tui.engine.models.static_context import LEAST_SPAN, NotStatic, StaticContext
from edge_tui.engine.models.transformers_tier import TransformersModel, load_transformers
from tests.engine.models.architectures import make_tiny
from tests.engine.models.recording import Recording
from tests.engine.models.references import (
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
    source,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

KINDS = ("cwm", "olmo", "bloom", "gptj", "hunyuan_v1_dense")
"""Kinds that only transformers knows: with windows, plain, with ALiBi, partly rotated, with normed heads."""
T = LEAST_SPAN + 20


class Case(NamedTuple):
    model: TransformersModel
    ids: Tensor
    logits: Tensor


@pytest.fixture(
    scope="module",
    params=[KINDS[0], *(pytest.param(kind, marks=pytest.mark.proof) for kind in KINDS[1:])],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, longest = request.param, {"max_position_embeddings": 2 * T, "n_positions": 2 * T}
    if kind == "bloom" and not hasattr(modeling_bloom, "_get_alibi_slopes"):
        pytest.skip("this transformers has a bias as long as the text, not as the buffers")
    own = {} if kind == "bloom" else {k: v for k, v in longest.items() if (k[0] == "n") == (kind == "gptj")}
    path = make_tiny(tmp_path_factory.mktemp("static") / kind, kind, **own)
    model, ids = load(path), random_ids(2, T, vocab=96)
    model.use_static()
    with torch.inference_mode():
        return Case(model, ids, reference(path)(input_ids=ids, use_cache=False).logits)


def load(path: Path) -> TransformersModel:
    return load_transformers(source(path), device="cpu", dtype=torch.float32, precision="float32")


def opened(model: TransformersModel, rows: int, capacity: int = 2 * T) -> Any:
    """An empty static context."""
    context = model.open(rows, capacity)
    assert isinstance(context, StaticContext)
    return context


def test_it_is_what_a_captured_step_needs(case: Case) -> None:
    context = opened(case.model, 1)
    assert isinstance(context, CapturableContext)
    assert isinstance(context, ResumableContext)


def test_steps_over_a_border_of_spans(case: Case) -> None:
    context, start = opened(case.model, 2), LEAST_SPAN - 6
    told: list[tuple[int, int]] = []
    got = case.model.prefill(
        context, case.ids[:, :start], chunk=100, progress=lambda a, b: told.append((a, b))
    )
    assert told[-1] == (start, start)
    assert deviation(got.logits, case.logits[:, start - 1 : start]) < TOLERANCE
    spans = []
    for at in range(start, T):
        spans.append(context.widen(2))
        step = case.model.forward(context, case.ids[:, at : at + 1]).logits
        assert deviation(step, case.logits[:, at : at + 1]) < TOLERANCE
    assert set(spans) == {LEAST_SPAN, 2 * LEAST_SPAN}
    assert spans == sorted(spans)
    assert context.length.tolist() == [T, T]


def test_several_positions_at_once(case: Case) -> None:
    context, start = opened(case.model, 2), LEAST_SPAN - 2
    case.model.prefill(context, case.ids[:, :start])
    got = case.model.forward(context, case.ids[:, start : start + 5]).logits
    assert deviation(got, case.logits[:, start : start + 5]) < TOLERANCE


def test_what_is_read_once_more_stands_in_a_step_of_its_own(case: Case) -> None:
    context = opened(case.model, 1)
    case.model.prefill(context, case.ids[:1, :30])
    context.truncate(torch.tensor([29]))
    again = case.model.prefill(context, case.ids[:1, 29:30]).logits
    assert context.widen(1) == LEAST_SPAN
    assert deviation(again, case.logits[:1, 29:30]) < TOLERANCE


def test_rows_change_places_and_their_old_addresses_hold(case: Case) -> None:
    context = opened(case.model, 2, 64)
    case.model.prefill(context, case.ids[:, :10])
    held = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in context.cache.layers]
    parent = torch.tensor([1, 0])
    context.reorder(parent)
    got = one_by_one(case.model, context, case.ids[parent, 10:14])
    assert deviation(got, case.logits[parent, 10:14]) < TOLERANCE
    context.reorder(torch.tensor([1, 1]))
    got = one_by_one(case.model, context, case.ids[:1, 14:18].expand(2, -1))
    assert deviation(got, case.logits[:1, 14:18].expand(2, -1, -1)) < TOLERANCE
    assert held == [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in context.cache.layers]


def test_rewinding_and_going_on_where_it_was(case: Case) -> None:
    context = opened(case.model, 1, 64)
    case.model.prefill(context, case.ids[:1, :20])
    context.truncate(torch.tensor([8]))
    assert deviation(one_by_one(case.model, context, case.ids[:1, 8:12]), case.logits[:1, 8:12]) < TOLERANCE
    context.resume(20)
    assert context.length.tolist() == [20]
    assert deviation(one_by_one(case.model, context, case.ids[:1, 20:24]), case.logits[:1, 20:24]) < TOLERANCE
    context.truncate(torch.tensor([0]))
    assert deviation(one_by_one(case.model, context, case.ids[1:, :4]), case.logits[1:, :4]) < TOLERANCE


def test_a_fork_leaves_its_parent_alone_and_starts_anew_at_its_addresses(case: Case) -> None:
    context = opened(case.model, 1, 64)
    case.model.prefill(context, case.ids[:1, :9])
    twins = context.fork(2)
    case.model.forward(twins, random_ids(2, 3, vocab=96, seed=1))
    assert deviation(one_by_one(case.model, context, case.ids[:1, 9:12]), case.logits[:1, 9:12]) < TOLERANCE
    addresses = [layer.keys.data_ptr() for layer in twins.cache.layers]
    assert twins.refork()
    assert not context.refork()
    assert [layer.keys.data_ptr() for layer in twins.cache.layers] == addresses
    got = one_by_one(case.model, twins, case.ids[:1, 12:16].expand(2, -1))
    assert deviation(got, case.logits[:1, 12:16].expand(2, -1, -1)) < TOLERANCE


def test_states_lie_where_they_lay(case: Case) -> None:
    context = case.model.open(1, 64, past=True)
    last = case.model.info.layers
    context.needs = Needs(hidden=(1, last), past=True)
    case.model.prefill(context, case.ids[:1, :9])
    first = case.model.forward(context, case.ids[:1, 9:10])
    hidden, logits = first.hidden, first.logits
    assert hidden is not None
    before = hidden.clone()
    second = case.model.forward(context, case.ids[:1, 10:11])
    assert second.hidden is hidden
    assert second.logits is logits
    assert not torch.equal(hidden, before)
    assert deviation(logits, case.logits[:1, 10:11]) < TOLERANCE
    assert second.past is not None
    assert torch.equal(second.past[:, 10], hidden[:, 0, 1])
    assert context.length.tolist() == [11]


def test_a_full_context_is_refused_before_anything_is_written(case: Case) -> None:
    context = opened(case.model, 1, 12)
    with pytest.raises(ContextFull, match="holds 12"):
        case.model.prefill(context, case.ids[:1, :13])
    case.model.prefill(context, case.ids[:1, :12])
    with pytest.raises(ContextFull, match="holds 12"):
        case.model.forward(context, case.ids[:1, :1])
    context.truncate(torch.tensor([10]))
    assert deviation(one_by_one(case.model, context, case.ids[:1, 10:12]), case.logits[:1, 10:12]) < TOLERANCE


def test_rows_of_different_lengths_are_refused(case: Case) -> None:
    context = opened(case.model, 2, 64)
    case.model.prefill(context, case.ids[:, :9])
    with pytest.raises(ValueError, match="one length"):
        context.truncate(torch.tensor([4, 9]))


@pytest.mark.parametrize(
    ("kind", "why"), [("mamba", "running state"), ("deepseek_v32", "layers of a kind of their own")]
)
def test_other_caches_are_not_static(kind: str, why: str, tmp_path: Path) -> None:
    model = load(make_tiny(tmp_path / kind, kind))
    with pytest.raises(NotStatic, match=why):
        model.use_static()


@pytest.mark.parametrize("static", [False, True])
def test_what_graphs_take_back_makes_room_again(static: bool, tmp_path: Path) -> None:
    """Graphs of proposals count all of them, of which the device keeps a few."""
    path = make_tiny(tmp_path / "cwm", "cwm") if static else checkpoint(tmp_path / "flat", "llama")
    model = load(path) if static else flat(path)
    if static:
        model.use_static()
    context = model.open(1, 16)
    assert isinstance(context, CapturableContext)
    model.prefill(context, random_ids(1, 4, vocab=96))
    for _ in range(3):
        context.reserve(5)
        context.length += 1
        context.count_on_host(5, rewinds=True)
    context.reserve(9)
    with pytest.raises(ContextFull):
        context.reserve(10)


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 5])
def test_a_step_is_replayed_wherever_the_text_has_got_to(count: int, case: Case) -> None:
    context, at = opened(case.model, 1), torch.tensor([8])
    case.model.prefill(context, case.ids[:1, :8])
    context.widen(2 * count)
    fed, logits = case.ids[:1, :count].clone(), case.logits[:1, :count].clone()

    def step() -> None:
        context.truncate(at)
        logits.copy_(case.model.forward(context, fed).logits)

    recording = Recording(step)
    assert context.length.tolist() == [8]
    place = 8
    for taken in (*range(count, 0, -1), count, count):
        at.fill_(place)
        fed.copy_(case.ids[:1, place : place + count])
        recording.replay()
        assert deviation(logits, case.logits[:1, place : place + count]) < TOLERANCE
        place += taken
    assert context.length.tolist() == [place - taken + count]
