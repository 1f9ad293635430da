from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edge_tui.engine.events import TOP
from edge_tui.engine.ops.removal import removing_stages
from edge_tui.engine.ops.stats import (
    ALTERNATIVES,
    ENDED,
    FLOATS,
    INTS,
    OUT_OF_RANGE,
    STAGES,
    look_up,
    record,
    reference,
    summarise,
    top,
)

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
stats_triton = pytest.importorskip("edge_tui.engine.ops.triton.stats")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
interpreted = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), vocab=st.integers(2, 60), removed=st.floats(0, 0.9))
def test_summary_agrees_with_double_precision(seed: int, vocab: int, removed: float) -> None:
    gen = torch.Generator().manual_seed(seed)
    z = torch.randn(3, vocab, generator=gen) * 5
    z[torch.rand(3, vocab, generator=gen) < removed] = -torch.inf
    z[:, 0] = 0.5
    chosen = torch.zeros(3, dtype=torch.int64)
    logp, rank, entropy, ids, values = summarise(z, chosen)
    reference = z.double().log_softmax(-1)
    probabilities = reference.exp()
    expected = -(probabilities * reference.masked_fill(probabilities == 0, 0)).sum(-1)
    assert torch.allclose(logp.double(), reference[:, 0], atol=1e-5)
    assert torch.allclose(entropy.double(), expected, atol=1e-4)
    assert torch.equal(rank, (z > z[:, :1]).sum(-1))
    assert ids.shape == values.shape == (3, TOP)
    kept = (z > -torch.inf).sum(-1)
    for row in range(3):
        shown = min(int(kept[row]), TOP)
        assert (ids[row, :shown] >= 0).all()
        assert (ids[row, shown:] == -1).all()
        assert torch.allclose(
            values[row, :shown], reference[row].float().sort(descending=True)[0][:shown], atol=1e-5
        )


def test_broken_logits_show_in_the_entropy() -> None:
    for broken in (math.nan, math.inf):
        z = torch.zeros(1, 30)
        z[0, 7] = broken
        assert not torch.isfinite(summarise(z, torch.tensor([0]))[2]).any()


BROKEN_FINALS = {"nan": (7, math.nan), "inf": (7, math.inf), "nothing": (slice(None), -math.inf)}


def _broken(record: Callable[..., tuple[Tensor, Tensor]], kind: str, device: str) -> None:
    """A choice from broken logits has no final log-probability; codes in `done` come through."""
    z = torch.randn(2, 70, device=device)
    final = z.clone()
    final[1, BROKEN_FINALS[kind][0]] = BROKEN_FINALS[kind][1]
    rows, done = torch.arange(2, device=device), torch.tensor([ENDED, ENDED | OUT_OF_RANGE], device=device)
    ints, floats = record(z, final, rows, rows, done, torch.ones(2, device=device), [])
    assert torch.isfinite(floats[:, FLOATS.index("entropy")]).all()
    assert floats[:, FLOATS.index("final_logp")].isnan().tolist() == [False, True]
    assert ints[:, INTS.index("done")].tolist() == [1, 3]


@pytest.mark.parametrize("kind", BROKEN_FINALS)
def test_broken_choices_show_in_the_final_log_probability(kind: str) -> None:
    _broken(reference, kind, "cpu")


@interpreted
@pytest.mark.parametrize("kind", ["nan", "nothing", pytest.param("inf", marks=pytest.mark.proof)])
def test_broken_choices_show_in_what_kernels_record(kind: str) -> None:
    _broken(lambda *given: stats_triton.record(*given, moved=False), kind, DEVICE)


def _ending(record: Callable[..., tuple[Tensor, Tensor]], device: str, **more: object) -> None:
    """Tokens that end a row mark it, beside what its strategy says."""
    z, chosen = torch.randn(4, 70, device=device), torch.tensor([3, 9, 9, 4], device=device)
    done = torch.tensor([0, 0, OUT_OF_RANGE, OUT_OF_RANGE], device=device)
    given = z, z, chosen, torch.arange(4, device=device), done, torch.ones(4, device=device), []
    for ends, expected in (((50, 9), [0, 1, 3, 2]), ((3,), [1, 0, 2, 2]), ((), [0, 0, 2, 2])):
        ids = torch.tensor(ends, dtype=torch.int64, device=device)
        assert record(*given, ends=ids, **more)[0][:, INTS.index("done")].tolist() == expected
    assert record(*given, **more)[0][:, INTS.index("done")].tolist() == [0, 0, 2, 2]


def test_a_token_that_ends_a_row_marks_it() -> None:
    _ending(record, "cpu")


@interpreted
def test_a_token_that_ends_a_row_marks_it_in_what_kernels_record() -> None:
    _ending(stats_triton.record, DEVICE, moved=False)


def test_small_vocabularies_are_padded() -> None:
    values, ids = top(torch.tensor([[0.1, 0.9]]).log())
    assert ids[0].tolist() == [1, 0] + [-1] * (TOP - 2)
    assert values[0, 2:].eq(-torch.inf).all()


def test_record_layout() -> None:
    z, final = torch.randn(2, 40), torch.randn(2, 40)
    chosen, parent = torch.tensor([3, 4]), torch.tensor([1, 0])
    done, version = torch.tensor([True, False]), torch.tensor([2.0, 2.0])
    extra = torch.tensor([7.0, 8.0])
    ints, floats = record(z, final, chosen, parent, done, version, [extra])
    assert ints.shape == (2, len(INTS) + 3 * TOP)
    assert ints.dtype == torch.int32
    assert ints[:, INTS.index("id")].tolist() == [3, 4]
    assert ints[:, INTS.index("parent")].tolist() == [1, 0]
    assert ints[:, INTS.index("done")].tolist() == [1, 0]
    assert ints[:, INTS.index("version")].tolist() == [2, 2]
    expected = final.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
    assert torch.allclose(floats[:, FLOATS.index("final_logp")], expected)
    assert ints[:, INTS.index("candidate_count")].tolist() == [40, 40]
    assert floats[:, FLOATS.index("margin")].isnan().all()
    for at, logits in enumerate((z, final)):
        best = floats[:, len(FLOATS) + at * TOP :][:, :TOP]
        assert torch.allclose(best, logits.log_softmax(-1).topk(TOP).values, atol=1e-5)
    assert floats[:, -1].tolist() == [7.0, 8.0]


def agree(z: Tensor, final: Tensor, moved: bool, extras: int = 1, device: str = DEVICE) -> Tensor:
    """Compares the kernels' record with the reference's; returns the integers."""
    rows = len(final)
    generator = torch.Generator().manual_seed(rows)
    parent = torch.randint(0, rows, (rows,), generator=generator) if moved else torch.arange(rows)
    chosen = final.argmax(-1).cpu()
    done, version = torch.arange(rows) % 2 == 0, torch.full((rows,), 7.0)
    more = [torch.randn(rows, generator=generator) for _ in range(extras)]
    z, final = z.to(device), final.to(device)
    given = [tensor.to(device) for tensor in (chosen, parent, done, version)]
    on_device = [tensor.to(device) for tensor in more]
    margin = torch.rand(rows, generator=generator).to(device)
    ints, floats = reference(z[given[1]], final, *given, on_device, margin)
    column = torch.randn(final.shape, generator=generator).to(device)
    removing = torch.randint(-3, 100, final.shape, generator=generator).to(device, torch.int8)
    known = None if moved else removing  # strategies that move rows remove nothing but by themselves
    found_ints, found_floats = stats_triton.record(
        z, final, *given, on_device, moved, [column], margin, known
    )
    found_floats, told = found_floats[:, : -2 * TOP], found_floats[:, -2 * TOP :]
    assert torch.equal(told.nan_to_num(9.0), look_up(column, found_ints[:, ALTERNATIVES]).nan_to_num(9.0))
    alternatives = found_ints[:, ALTERNATIVES][:, :TOP]
    logged = () if known is None else None  # kernels leave UNKNOWN as it is
    expected = removing_stages(alternatives, final, logged, known=known)
    assert torch.equal(found_ints[:, STAGES].long(), expected)
    assert (found_ints.dtype, found_floats.dtype) == (ints.dtype, floats.dtype)
    assert torch.equal(found_ints[:, : len(INTS)], ints[:, : len(INTS)])
    assert torch.allclose(found_floats, floats, rtol=1e-5, atol=2e-5)
    # Among equal logits a reference may take any; each id shown must have the logit it is shown with.
    for side, logits in enumerate((z[given[1]].float(), final)):
        at = len(INTS) + side * TOP
        ids, expected = found_ints[:, at : at + TOP].long(), ints[:, at : at + TOP]
        assert torch.equal(ids < 0, expected < 0)
        shown = ids >= 0
        logp = logits.log_softmax(-1).gather(-1, ids.clamp_min(0))
        values = found_floats[:, len(FLOATS) + side * TOP :][:, :TOP]
        assert torch.allclose(logp[shown], values[shown], atol=2e-5)
        for row in ids.tolist():
            named = [token for token in row if token >= 0]
            assert len(set(named)) == len(named)
    return found_ints.cpu()


@interpreted
@pytest.mark.parametrize(
    ("rows", "vocab", "moved", "extras"),
    [(1, 5, False, 0), (3, 101, True, 5), (1, 801, False, 0)],
)
def test_kernels_record_what_the_reference_does(rows: int, vocab: int, moved: bool, extras: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    z = torch.randn(rows, vocab, generator=generator) * 4
    z[:, 1::7] = -math.inf
    final = z.masked_fill(torch.rand(rows, vocab, generator=generator) < 0.5, -math.inf)
    final[:, 0] = 1.0
    final[-1, 1:] = -math.inf
    agree(z, final, moved, extras)


@interpreted
def test_kernels_read_views_as_the_reference_does() -> None:
    """A strategy may give one row's tensors expanded to all rows, and transposed tables."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(3, 40, generator=generator).to(DEVICE)
    final = torch.randn(40, 3, generator=generator).to(DEVICE).T
    one = torch.tensor([2]).to(DEVICE)
    chosen, parent = torch.tensor([[7, 0], [9, 0], [1, 0]]).to(DEVICE)[:, 0], one.expand(3)
    done, version = torch.tensor([True]).to(DEVICE).expand(3), torch.tensor([4.0]).to(DEVICE).expand(3)
    decision = (chosen, parent, done, version, [])
    candidates = [torch.randn(40, 3, generator=generator).to(DEVICE).T]
    found = stats_triton.record(z, final, *decision, True, candidates)
    plain = [each.contiguous() for each in (chosen, parent, done, version)]
    expected = stats_triton.record(z, final.contiguous(), *plain, [], True, [candidates[0].contiguous()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    ints, floats = reference(z.index_select(0, plain[1]), final.contiguous(), *plain, [])
    assert torch.equal(found[0][:, : ints.shape[1]], ints)
    torch.testing.assert_close(found[1][:, : floats.shape[1]], floats, equal_nan=True)


@interpreted
@pytest.mark.parametrize("width", [3, 300])
def test_records_go_round_the_slots(width: int) -> None:
    """Each to the slot whose turn it is, and nothing beside it."""
    ints = torch.full((3, 2, width), -1, dtype=torch.int32, device=DEVICE)
    floats = torch.full((3, 2, width + 4), -1.0, device=DEVICE)
    turn = torch.ones(1, dtype=torch.int64, device=DEVICE)
    kept = ints.clone(), floats.clone()
    for number in range(1, 6):
        record = (
            torch.randint(99, ints.shape[1:], device=DEVICE).int(),
            torch.rand(floats[0].shape).to(DEVICE),
        )
        stats_triton.post(*record, ints, floats, turn)
        for slots, part in zip(kept, record, strict=True):
            slots[number % 3] = part
        assert torch.equal(ints, kept[0])
        assert torch.equal(floats, kept[1])
        assert turn.item() == number + 1


@interpreted
def test_kernels_order_ties_by_id_and_read_padded_half_precision() -> None:
    z = (torch.randn(2, 100, generator=torch.Generator().manual_seed(3)) * 2).round().to(torch.bfloat16)
    final = torch.zeros(2, 90)
    ints = agree(z[:, :90], final, False)
    assert ints[:, ALTERNATIVES][:, TOP:].tolist() == [list(range(TOP))] * 2
    best = (-z[0, :90].float()).argsort(stable=True)[:TOP]
    assert ints[0, len(INTS) : len(INTS) + TOP].tolist() == best.tolist()


@interpreted
@pytest.mark.parametrize("broken", [math.nan, pytest.param(math.inf, marks=pytest.mark.proof)])
def test_kernels_show_broken_logits_in_the_entropy(broken: float) -> None:
    for z in (torch.zeros(1, 70).index_fill(1, torch.tensor([41]), broken), torch.full((1, 70), broken)):
        z, chosen = z.to(DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
        rest = (chosen, torch.zeros(1, dtype=torch.bool, device=DEVICE), torch.zeros(1, device=DEVICE))
        _, floats = stats_triton.record(z, torch.zeros_like(z), chosen, *rest, [], False)
        assert not torch.isfinite(floats[:, FLOATS.index("entropy")]).any()


@interpreted
def test_kernels_leave_their_scratch_as_they_found_it() -> None:
    z = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    first = agree(z, z, False)
    assert torch.equal(agree(z, z, False), first)
    scratch = stats_triton.scratch_of(z.to(DEVICE).device, 2, 100)
    assert scratch.parts.any(), "this is the one in use"
    assert not scratch.filled.any()
    assert not scratch.arrived.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kept", [1, 30, 88_000])
def test_a_true_vocabulary_is_recorded(rows: int, kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    z = torch.randn(rows, 151_936, generator=generator) * 3
    edge = z.sort(descending=True).values[:, kept - 1 : kept]
    agree(z, (z / 1.5).masked_fill(z < edge, -math.inf), rows > 1, 0, "cuda")
    agree(z.to(torch.bfloat16), z.to(torch.bfloat16).float(), False, 0, "cuda")
