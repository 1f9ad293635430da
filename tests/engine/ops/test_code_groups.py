"""Codes in groups: exact in every form, packed and taken apart, stacked with other forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edge_tui.engine.ops.code_groups import CodeGroups, pack, stack, unpack
from edge_tui.engine.ops.group_form import GroupForm, form_of_groups, merged
from tests.engine.ops.random_groups import KINDS, random_groups


def columns_of(form: GroupForm, groups: int) -> int:
    return 256 * groups if form.outer else form.group * groups


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packed_comes_apart_as_it_was(kind: str) -> None:
    form = KINDS[kind]
    for rows, groups in ((1, 1), (3, 2), (2, 5)):
        whole = random_groups(form, rows, columns_of(form, groups), seed=rows)
        packed = pack(whole)
        again = unpack(packed)
        assert torch.equal(again.codes, whole.codes)
        assert torch.equal(again.dequantise(), whole.dequantise())
        tensors = packed.weight, packed.scale, packed.outer
        assert form.nbytes(rows, whole.codes.shape[1]) == sum(t.nbytes for t in tensors if t is not None)


def test_a_word_holds_columns_where_the_kernel_looks_for_them() -> None:
    """Codes 2i and 2i + 1 sixteen bits apart, lanes beside one another, a lane's words four lanes apart."""
    for form in (GroupForm(4, 32), GroupForm(8, 32)):
        per = 32 // form.bits
        for column in range(2 * form.chunk):
            codes = torch.zeros(1, 2 * form.chunk, dtype=torch.uint8)
            codes[0, column] = 1
            scale = torch.ones(1, codes.shape[1] // form.group, 1).half()
            packed = pack(CodeGroups(form, codes, scale)).weight
            chunk, inside = divmod(column, form.chunk)
            word, lane, code = inside // (4 * per), inside // per % 4, inside % per
            assert int(packed[0, 16 * chunk + 4 * lane + word]) == 1 << (
                form.bits * (code // 2) + 16 * (code % 2)
            )


def test_a_weight_is_scale_times_code_less_the_subtrahend() -> None:
    codes = torch.tensor([[3, 15] + [0] * 30], dtype=torch.uint8)
    for form, scale, first in (
        (GroupForm(4, 32), [0.5], 0.5 * (3 - 8)),
        (GroupForm(8, 32), [0.5], 0.5 * (3 - 128)),
        (GroupForm(4, 32, "own"), [0.5, 2.25], 0.5 * 3 - 2.25),
        (GroupForm(4, 32, "zero"), [0.5, 7.0], 0.5 * (3 - 7)),
    ):
        weights = CodeGroups(form, codes, torch.tensor([[scale]]).half()).dequantise()
        assert float(weights[0, 0]) == first
        assert float(weights[0, 1]) - first == 0.5 * 12
    outer = torch.tensor([[[0.5, 0.25]]]).half()
    form = GroupForm(4, 32, "own", outer=True)
    scale = torch.tensor([[[3, 5]]], dtype=torch.int8)
    assert float(CodeGroups(form, codes, scale, outer).dequantise()[0, 0]) == 0.5 * 3 * 3 - 0.25 * 5


@pytest.mark.parametrize(
    ("names", "kind", "group"),
    [
        (("Q4_K", "Q4_K", "Q6_K"), "group8m", 16),
        (("Q6_K", "Q5_K"), "group8m", 16),
        (("Q5_0", "Q5_0", "Q8_0"), "group8", 32),
        (("Q4_0", "Q8_0"), "group8", 32),
        (("Q4_0", "Q4_1"), "group4m", 32),
        (("Q5_1", "Q4_0"), "group8m", 32),
        (("Q4_0", "AWQ g128"), "group4m", 32),
        (("AWQ g64", "AWQ g128"), "group4m", 64),
    ],
)
def test_parts_of_other_forms_become_one_matrix_of_the_same_weights(
    names: tuple[str, ...], kind: str, group: int
) -> None:
    parts = [random_groups(KINDS[name], 3, 512, seed) for seed, name in enumerate(names)]
    narrow = {"Q5_0": range(112, 144), "Q6_K": range(96, 160)}
    for part, name in zip(parts, names, strict=True):
        if codes := narrow.get(name):
            part.codes.remainder_(len(codes)).add_(codes.start)
        if name == "Q6_K" and part.outer is not None:
            part.scale.fill_(127)  # of all bits, so that a product of larger codes would be rounded
            part.outer.fill_(1 / 3)
    whole = stack(parts)
    assert whole is not None
    assert (whole.form.kind, whole.form.group) == (kind, group)
    assert torch.equal(whole.dequantise(), torch.cat([part.dequantise() for part in parts]))


def test_parts_without_a_common_form_are_no_matrix() -> None:
    parts = [random_groups(KINDS[name], 2, 256) for name in ("Q4_0", "Q4_K", "AWQ g32", "Q4_1")]
    assert stack(parts[:2]) is None
    assert stack(parts[2:]) is None
    loud = replace(parts[0], scale=torch.full_like(parts[0].scale, 9000.0))
    assert stack([loud, parts[3]]) is None, "8 · 9000 is no float16"
    assert merged([KINDS["Q4_0"]]) == KINDS["Q4_0"]


@pytest.mark.parametrize(
    ("bits", "group", "form"),
    [
        (4, 128, GroupForm(4, 128)),
        (4, 3584, GroupForm(4, 128)),
        (4, 96, GroupForm(4, 32)),
        (4, 16, GroupForm(8, 16)),
        (8, 64, GroupForm(8, 64)),
        (5, 32, GroupForm(8, 32)),
        (4, 24, None),
    ],
)
def test_groups_of_any_size_become_several_of_a_form(bits: int, group: int, form: GroupForm | None) -> None:
    assert form_of_groups(bits, group) == form


def test_rows_are_picked_with_all_that_belongs_to_them() -> None:
    for form in KINDS.values():
        whole = random_groups(form, 6, 256)
        rows = torch.tensor([4, 0, 5])
        assert torch.equal(whole[rows].dequantise(), whole.dequantise()[rows])
