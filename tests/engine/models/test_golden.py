"""The flat decoder against transformers: every family, every way of getting to a position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from tests.engine.models.references import (
    SOME_CASES,
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from edge_tui.engine.models.flat import FlatModel

T = 48
CAPACITY = 64


class Pair(NamedTuple):
    name: str
    path: Path
    model: FlatModel
    wanted: Any
    ids: Tensor
    logits: Tensor
    """`[3, T, V]`, from one full forward call of the reference."""


@pytest.fixture(scope="module", params=SOME_CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp("golden"))


def make_pair(case: str, folder: Path) -> Pair:
    path = checkpoint(folder, case)
    wanted, ids = reference(path), random_ids(3, T)
    with torch.inference_mode():
        logits = wanted(ids).logits
    return Pair(case, path, flat(path), wanted, ids, logits)


def test_one_call(pair: Pair) -> None:
    got = pair.model.forward(pair.model.open(3, CAPACITY), pair.ids).logits
    assert deviation(got, pair.logits) < TOLERANCE


def test_prefill_then_steps(pair: Pair) -> None:
    ctx = pair.model.open(3, CAPACITY)
    got = pair.model.prefill(ctx, pair.ids[:, :30], chunk=13).logits
    assert deviation(got, pair.logits[:, 29:30]) < TOLERANCE
    got = one_by_one(pair.model, ctx, pair.ids[:, 30:])
    assert deviation(got, pair.logits[:, 30:]) < TOLERANCE
    assert ctx.length.tolist() == [T, T, T]


def test_ragged_rows(pair: Pair) -> None:
    ctx = pair.model.open(3, CAPACITY)
    pair.model.prefill(ctx, pair.ids[:, :21], chunk=8)
    at = torch.tensor([5, 21, 13])
    ctx.truncate(at)
    for k in (1, 3, 1, 2):
        ids = torch.stack([pair.ids[r, n : n + k] for r, n in enumerate(at.tolist())])
        wanted = torch.stack([pair.logits[r, n : n + k] for r, n in enumerate(at.tolist())])
        assert deviation(pair.model.forward(ctx, ids).logits, wanted) < TOLERANCE
        at += k
    assert ctx.length.tolist() == at.tolist()


def test_truncate_unevenly(pair: Pair) -> None:
    ctx = pair.model.open(3, CAPACITY)
    pair.model.forward(ctx, pair.ids)
    keep = [44, 9, 30]
    ctx.truncate(torch.tensor(keep))
    ids = torch.stack([pair.ids[r, n : n + 4] for r, n in enumerate(keep)])
    wanted = torch.stack([pair.logits[r, n : n + 4] for r, n in enumerate(keep)])
    assert deviation(one_by_one(pair.model, ctx, ids), wanted) < TOLERANCE


def test_reorder(pair: Pair) -> None:
    lengths = [20, 7, 31]
    ctx = pair.model.open(3, CAPACITY)
    pair.model.prefill(ctx, pair.ids[:, :31])
    ctx.truncate(torch.tensor(lengths))
    parent = [2, 0, 2]
    ctx.reorder(torch.tensor(parent))
    at = [lengths[p] for p in parent]
    ids = torch.stack([pair.ids[p, n : n + 6] for p, n in zip(parent, at, strict=True)])
    wanted = torch.stack([pair.logits[p, n : n + 6] for p, n in zip(parent, at, strict=True)])
    assert deviation(one_by_one(pair.model, ctx, ids), wanted) < TOLERANCE


def test_fork(pair: Pair) -> None:
    ctx = pair.model.open(1, CAPACITY)
    pair.model.prefill(ctx, pair.ids[:1, :20])
    twins = ctx.fork(3)
    other = random_ids(3, 6, seed=3)
    other[1] = pair.ids[0, 20:26]
    got = one_by_one(pair.model, twins, other)
    assert deviation(got[1], pair.logits[0, 20:26]) < TOLERANCE
    got = one_by_one(pair.model, ctx, pair.ids[:1, 20:])  # the original has not felt it
    assert deviation(got, pair.logits[:1, 20:]) < TOLERANCE


@pytest.mark.parametrize("case", ["qwen2", "mistral windowed"])
def test_greedy_tokens(case: str, tmp_path: Path) -> None:
    path, prompt = checkpoint(tmp_path, case), random_ids(1, 10)
    wanted = reference(path).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = flat(path)
    ctx = model.open(1, 48)
    logits = model.prefill(ctx, prompt).logits
    tokens = []
    for _ in range(32):
        tokens.append(int(logits.argmax()))
        logits = model.forward(ctx, torch.tensor([[tokens[-1]]])).logits
    assert tokens == wanted[0, 10:].tolist()


def test_facts(pair: Pair) -> None:
    info = pair.model.info
    parameters = list(pair.wanted.parameters())
    assert info.parameters == sum(p.numel() for p in parameters)
    assert info.vocab == pair.logits.shape[-1]
    ctx = pair.model.open(2, CAPACITY)
    assert info.kv_bytes * 2 * CAPACITY == sum(block.nbytes for block in ctx.blocks)
    norms_of_heads = pair.model.config.qk_norm == "head"  # kept once for each head
    expanded = info.weight_bytes - 4 * info.parameters if norms_of_heads else 0
    assert info.weight_bytes == 4 * info.parameters + expanded
    assert 0 <= expanded < 0.01 * info.weight_bytes
