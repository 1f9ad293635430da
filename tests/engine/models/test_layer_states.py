"""Hidden states, early-exit logits and past states, against transformers' `output_hidden_states`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.models.base import LanguageModel
from edge_tui.engine.models.layer_access import find_head
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import checkpoint, deviation, flat, random_ids, reference
from tests.engine.models.test_transformers_tier import load, make_other

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

T, CAPACITY, TOLERANCE = 40, 48, 1e-5
NEEDS = Needs(hidden=(2, 0, 1), early=(1, 0), past=True)
FLAT = {
    "qwen2": "norm",
    "mistral windowed": "norm",
    "phi3": "norm",
    "gemma2": "norm",
    "granite": "norm",
    "gpt_neox": "final_layer_norm",
    "gpt2": "ln_f",
    "phi": "final_layernorm",
    "opt": "decoder.final_layer_norm",
}
"""The final norm of transformers' own model, inside its base model."""
OTHERS = {"gpt2": "ln_f", "bloom": "ln_f", "mamba": "norm_f"}
AFTER_HEAD: dict[str, Callable[[Tensor], Tensor]] = {
    "gemma2": lambda z: 3.0 * (z / 3.0).tanh(),
    "granite": lambda z: z / 4.0,
}
"""What a family does to logits, with the numbers of its random checkpoint."""


class Case(NamedTuple):
    model: LanguageModel
    ids: Tensor
    states: Tensor
    """`[layers + 1, R, T, D]`, from one full forward of the reference."""
    early: Callable[[Tensor, bool], Tensor]
    """Logits of states, with and without the final norm."""


def make_case(kind: str, norm: str, path: Path, model: LanguageModel, vocab: int) -> Case:
    wanted, ids = reference(path), random_ids(3, T, vocab=vocab)
    final_norm, after = wanted.base_model.get_submodule(norm), AFTER_HEAD.get(kind, lambda z: z)
    if kind == "opt":
        final_norm = wanted.get_submodule("model.decoder.final_layer_norm")
    with torch.inference_mode():
        states = torch.stack(wanted(ids, output_hidden_states=True).hidden_states)

    def early(states: Tensor, normed: bool) -> Tensor:
        logits: Tensor = after(wanted.get_output_embeddings()(final_norm(states) if normed else states))
        return logits

    return Case(model, ids, states, early)


NAMES = [*(f"flat {name}" for name in FLAT), *(f"other {name}" for name in OTHERS)]
QUICK = ("flat qwen2", "flat gpt2", "other mamba")
"""A compiled step, plain operations, and the other tier with a running state."""


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.proof) for name in NAMES],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    tier, _, kind = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("layers")
    if tier == "flat":
        path = checkpoint(folder, kind)
        return make_case(kind, FLAT[kind], path, flat(path), 320)
    path = make_other(folder, kind)
    return make_case(kind, OTHERS[kind], path, load(path), 96)


def open_rows(case: Case, rows: int, needs: Needs = NEEDS) -> Any:
    ctx = case.model.open(rows, CAPACITY, past=needs.past)
    ctx.needs = needs
    return ctx


@torch.inference_mode()
def check(case: Case, out: Output, rows: Sequence[int], ends: Sequence[int], needs: Needs = NEEDS) -> None:
    """Compares an output with the reference's rows, each read up to its end."""
    k = out.logits.shape[1]
    at = torch.stack([case.states[:, row, end - k : end] for row, end in zip(rows, ends, strict=True)], 1)
    if needs.hidden:
        assert out.hidden is not None
        assert deviation(out.hidden, at[list(needs.hidden)].permute(1, 2, 0, 3)) < TOLERANCE
    else:
        assert out.hidden is None
    if needs.early:
        assert out.early is not None
        wanted = case.early(at[list(needs.early)], needs.early_norm).permute(1, 2, 0, 3)
        assert deviation(out.early, wanted) < TOLERANCE
    else:
        assert out.early is None
    logits = case.early(at[-1], False)
    assert deviation(out.logits, logits) < TOLERANCE
    if not needs.past:
        assert out.past is out.past_length is None
        return
    assert out.past is not None
    assert out.past_length is not None
    assert out.past_length.tolist() == list(ends)
    for place, (row, end) in enumerate(zip(rows, ends, strict=True)):
        place = min(place, len(out.past) - 1)
        assert deviation(out.past[place, :end], case.states[-1, row, :end]) < TOLERANCE


@pytest.mark.parametrize(
    "needs",
    [
        NEEDS,
        Needs(early=(0, 1), early_norm=False),
        Needs(hidden=(1,)),
        Needs(past=True),
        Needs(),
    ],
    ids=["all", "bare head", "hidden", "past", "none"],
)
def test_prefill_then_steps(case: Case, needs: Needs) -> None:
    ctx = open_rows(case, 3, needs)
    check(case, case.model.prefill(ctx, case.ids[:, :15], chunk=6), range(3), [15] * 3, needs)
    for end in range(16, 20):
        check(case, case.model.forward(ctx, case.ids[:, end - 1 : end]), range(3), [end] * 3, needs)
    check(case, case.model.forward(ctx, case.ids[:, 19:23]), range(3), [23] * 3, needs)
    check(case, case.model.forward(ctx, case.ids[:, 23:24]), range(3), [24] * 3, needs)


def test_a_short_prompt_is_read_like_a_step(case: Case) -> None:
    ctx = open_rows(case, 1)
    for start, end in ((0, 2), (2, 3), (3, 4)):
        check(case, case.model.prefill(ctx, case.ids[:1, start:end]), [0], [end])


def test_truncated_and_reordered_rows(case: Case) -> None:
    ctx = open_rows(case, 3)
    case.model.prefill(ctx, case.ids[:, :20])
    if not case.model.caps.rewind:
        ctx.reorder(torch.tensor([2, 2, 0]))
        check(case, case.model.forward(ctx, case.ids[[2, 2, 0], 20:21]), [2, 2, 0], [21] * 3)
        return
    ctx.truncate(torch.tensor([12, 20, 9]))
    parent = [2, 0, 2]
    ctx.reorder(torch.tensor(parent))
    ends = [9, 12, 9]
    for k in (1, 3, 1):
        ids = torch.stack([case.ids[p, n : n + k] for p, n in zip(parent, ends, strict=True)])
        ends = [n + k for n in ends]
        check(case, case.model.forward(ctx, ids), parent, ends)


def test_forks_go_their_own_way(case: Case) -> None:
    root = open_rows(case, 1)
    case.model.prefill(root, case.ids[:1, :10])
    twins = root.fork(2)
    case.model.forward(root, case.ids[1:2, 10:13])
    check(case, case.model.forward(twins, case.ids[:1, 10:11].expand(2, 1)), [0, 0], [11, 11])
    if case.model.caps.rewind:
        root.truncate(torch.tensor([10]))
        check(case, case.model.forward(root, case.ids[:1, 10:12]), [0], [12])


def test_needs_change_between_runs(case: Case) -> None:
    """A context with past states serves runs without, and goes on keeping them."""
    ctx = open_rows(case, 1, Needs(past=True))
    case.model.prefill(ctx, case.ids[:1, :8])
    ctx.needs = Needs()
    check(case, case.model.forward(ctx, case.ids[:1, 8:9]), [0], [9], Needs())
    ctx.needs = Needs(hidden=(1,), past=True)
    check(case, case.model.forward(ctx, case.ids[:1, 9:10]), [0], [10], ctx.needs)


def test_the_last_state_is_what_the_head_reads_where_its_width_is_another(tmp_path: Path) -> None:
    """OPT-350M's comes behind `project_out`, as in transformers."""
    path = checkpoint(tmp_path / "m", "opt 350M")
    model, wanted, ids = flat(path), reference(path), random_ids(1, 12)
    with torch.inference_mode():
        states = wanted(ids, output_hidden_states=True).hidden_states
        bare = [wanted.lm_head(wanted.model.decoder.project_out(states[i])) for i in (1, 0)]
    assert states[-1].shape[-1] == 16 != states[0].shape[-1]
    assert not model.caps.mixes
    for hidden in ((2, 2), (0, 1)):
        ctx = model.open(1, CAPACITY, past=True)
        ctx.needs = needs = Needs(hidden=hidden, early=(1, 0), past=True)
        for start, end in ((8, 9), (9, 10), (10, 12)):
            out = model.forward(ctx, ids[:, start:end]) if start > 8 else model.prefill(ctx, ids[:, :end])
            assert out.hidden is not None
            assert out.early is not None
            assert out.past is not None
            at = slice(start, end)
            for place, layer in enumerate(needs.hidden):
                assert deviation(out.hidden[:, :, place], states[layer][:, at]) < TOLERANCE
            for place, logits in enumerate(bare):
                assert deviation(out.early[:, :, place], logits[:, at]) < TOLERANCE
            assert deviation(out.past[0, :end], states[-1][0, :end]) < TOLERANCE


SCALED = {
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "gemma2": {"final_logit_softcapping": 3.0},
    "falcon_h1": {"lm_head_multiplier": 0.3},
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("cohere", torch.float32),
        ("granite", torch.bfloat16),
        ("gemma2", torch.float32),
        ("mamba", torch.bfloat16),
        pytest.param("cohere", torch.bfloat16, marks=pytest.mark.proof),
        pytest.param("gemma2", torch.bfloat16, marks=pytest.mark.proof),
        pytest.param("granite", torch.float32, marks=pytest.mark.proof),
        pytest.param("falcon_h1", torch.float32, marks=pytest.mark.proof),
    ],
)
def test_early_logits_pass_what_a_module_does_around_its_head(tmp_path: Path, kind: str, dtype: Any) -> None:
    model = load(make_tiny(tmp_path / "m", kind, **SCALED.get(kind, {})), dtype=dtype)
    ids, last = random_ids(1, 6, vocab=96), model.info.layers
    ctx = model.open(1, 8)
    ctx.needs = Needs(early=(last,), early_norm=False)  # it is there after the norm
    out = model.prefill(ctx, ids)
    assert model.caps.early
    assert out.early is not None
    off = TOLERANCE if dtype == torch.float32 else torch.finfo(dtype).eps
    assert deviation(out.early[:, :, 0].float(), out.logits.float()) < off


@pytest.mark.parametrize(
    ("scale", "cap"), [(1.0, 0.0), (0.3, 0.0), (-2.0, 0.0), (1.0, 2.0), (0.4, 2.0), (5.0, 2.0)]
)
def test_the_head_of_random_states_is_found(scale: float, cap: float) -> None:
    torch.manual_seed(1)
    product, last = torch.nn.Linear(8, 50, bias=False), torch.randn(1, 2, 8)
    with torch.inference_mode():
        logits = product(last) * scale
        logits = (logits / cap).tanh() * cap if cap else logits
        found = find_head(product, last, logits, [30.0, 2.0])
        assert found is not None
        states = 3 * torch.randn(4, 8)
        expected = product(states) * scale
        assert deviation(found(states), (expected / cap).tanh() * cap if cap else expected) < TOLERANCE


def test_a_module_that_does_something_else_to_logits_gives_no_early_ones() -> None:
    product, last = torch.nn.Linear(8, 50), torch.randn(1, 2, 8)
    with torch.inference_mode():
        assert find_head(product, last, product(last) ** 3, [30.0]) is None
        assert find_head(product, last, (product(last) / 2).tanh() * 2, []) is None, "the cap is not known"
        assert find_head(None, last, product(last), []) is None


def test_a_model_without_a_norm_behind_its_layers_has_one_form_of_early_logits(tmp_path: Path) -> None:
    model = load(make_tiny(tmp_path / "m", "opt", do_layer_norm_before=False))
    ids, early = random_ids(1, 6, vocab=96), []
    for normed in (False, True):
        ctx = model.open(1, 8)
        ctx.needs = Needs(early=(1,), early_norm=normed)
        early.append(model.prefill(ctx, ids).early)
    assert model.caps.early
    assert early[0] is not None
    assert torch.equal(*early)


def test_a_module_of_several_streams_gives_no_states(tmp_path: Path) -> None:
    caps = load(make_tiny(tmp_path / "m", "gemma3n_text")).caps
    assert not caps.hidden
    assert not caps.early
