"""What a transformers model must show at load, over as many architectures as can be made tiny."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import GPT2Model
from transformers.cache_utils import DynamicLayer

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.events import Failed, Loaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.groups import GroupedContext
from edge_tui.engine.models.transformers_tier import TransformersModel, load_transformers
from edge_tui.engine.port import Request
from tests.engine.models import architecture_table
from tests.engine.models.architectures import NotTiny, make_tiny
from tests.engine.models.references import VARIANTS, deviation, one_by_one, random_ids, reference, source
from tests.engine.random_checkpoints import TOKENS, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOSE = 5e-3
"""Scans in chunks, as hybrids have them, sum in another order than their steps do."""
RIGHT = ("falcon_mamba", "gptj", "jamba", "mpt")
"""Architectures that ask for positions, keep a running state, both or neither."""


def load(path: Path, dtype: torch.dtype = torch.float32) -> TransformersModel:
    precision = str(dtype).removeprefix("torch.")
    return load_transformers(source(path), device="cpu", dtype=dtype, precision=precision)


def is_right(path: Path, model: TransformersModel) -> None:
    """Holds a longer decode, as one row and as three that change places, against one forward."""
    ids = random_ids(3, 20, vocab=96)
    with torch.inference_mode():
        true = reference(path)(input_ids=ids, use_cache=False).logits
    ctx = model.open(1, 24)
    got = [model.prefill(ctx, ids[:1, :8]).logits, one_by_one(model, ctx, ids[:1, 8:])]
    assert deviation(torch.cat(got, 1), true[:1, 7:]) < LOOSE
    if not model.caps.fork:
        return
    ctx, parent = model.open(3, 24), torch.tensor([2, 0, 1])
    model.prefill(ctx, ids[:, :8])
    assert deviation(one_by_one(model, ctx, ids[:, 8:14]), true[:, 8:14]) < LOOSE
    ctx.reorder(parent)
    assert deviation(one_by_one(model, ctx, ids[parent, 14:]), true[parent, 14:]) < LOOSE


def is_causal(path: Path) -> bool:
    """Tells whether transformers' own numbers depend on the text before alone; Moshi's of 5.17 do not."""
    module, ids = reference(path), random_ids(1, 20, vocab=96)
    with torch.inference_mode():
        begun, whole = (module(input_ids=each, use_cache=False).logits for each in (ids[:, :8], ids))
    return deviation(begun, whole[:, :8]) < LOOSE


@pytest.mark.parametrize("kind", RIGHT)
def test_architectures_that_decode(kind: str, tmp_path: Path) -> None:
    try:
        model = load(make_tiny(tmp_path / kind, kind))
    except NotTiny as error:  # each version of transformers wants a kind's layers said in its own way
        pytest.skip(str(error))
    assert model.caps.fork
    is_right(tmp_path / kind, model)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("rwkv", torch.float32), ("openai-gpt", torch.bfloat16), ("bert", torch.float32)]
)
def test_architectures_that_forget_or_look_ahead_are_refused(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = make_tiny(tmp_path / kind, kind)
    with pytest.raises(
        WeightsError, match=r"cannot be decoded step by step: .*\(as two rows .*\), where 0\.\d+ is"
    ):
        load(path, dtype)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("flex_olmo", torch.float16), ("recurrent_gemma", torch.bfloat16)]
)
def test_16_bits_are_not_refused_for_their_rounding(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load(make_tiny(tmp_path / kind, kind), dtype)
    assert model.caps.fork == (kind != "recurrent_gemma")


@pytest.mark.parametrize("kind", ["gpt2", "jamba"])
def test_a_reordering_that_does_nothing_is_seen(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / kind, kind)
    monkeypatch.setattr(GroupedContext, "reorder", lambda _self, _parent: None)
    assert not load(path).caps.fork


@pytest.mark.parametrize("kind", ["llama", "jamba"])
def test_a_cache_that_keeps_nothing_is_seen(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / kind, kind)
    monkeypatch.setattr(DynamicLayer, "update", lambda _self, keys, values, *_args, **_kwargs: (keys, values))
    with pytest.raises(WeightsError, match="cannot be decoded step by step"):
        load(path)


def test_a_cache_that_stops_growing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, right = make_tiny(tmp_path / "llama", "llama"), DynamicLayer.update

    def update(self: DynamicLayer, *given: Any, **named: Any) -> Any:
        held = right(self, *given, **named)
        self.keys, self.values = self.keys[..., :4, :], self.values[..., :4, :]
        return held

    monkeypatch.setattr(DynamicLayer, "update", update)
    with pytest.raises(WeightsError, match="cannot be decoded step by step"):
        load(path)


def test_positions_that_are_off_by_one_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, right = make_tiny(tmp_path / "gpt2", "gpt2"), GPT2Model.forward

    def shifted(self: GPT2Model, ids: torch.Tensor, *, past_key_values: Any = None, **kwargs: Any) -> Any:
        held = past_key_values.get_seq_length() if past_key_values is not None else 0
        kwargs["position_ids"] = torch.arange(held, held + ids.shape[1])[None] + (held > 0)
        return right(self, ids, past_key_values=past_key_values, **kwargs)

    monkeypatch.setattr(GPT2Model, "forward", shifted)
    with pytest.raises(WeightsError, match="cannot be decoded step by step"):
        load(path)


def test_a_model_of_one_row_decodes_and_refuses_several(
    tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    path = make_tiny(tmp_path / "recurrent_gemma", "recurrent_gemma", vocab_size=320)
    save_tokenizer(path)
    engine = open_engine(model=path)
    seen = watch(engine, Request("the fox", strategy="greedy", max_length=8))
    assert len(seen.ids) == 8
    assert "one row" in " ".join(seen.all(Loaded)[0].notices)
    for request in (
        Request("the fox", strategy="beam", max_length=4),
        Request("the fox", strategy="top_p", samples=2, max_length=4),
    ):
        assert "can hold one only" in watch(engine, request).failed.message
    assert watch(engine, Request("the fox", strategy="greedy", max_length=8)).ids == seen.ids


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_architecture_is_right_or_refused(tmp_path: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    right, refused, large, acausal = [], [], [], []
    for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            path = make_tiny(tmp_path / kind, kind)
        except NotTiny:
            large.append(kind)
            continue
        try:
            model = load(path)
        except Exception:  # the loader makes a sentence of whatever it is
            refused.append(kind)
            continue
        try:
            if not is_causal(path):
                acausal.append(kind)
                continue
            is_right(path, model)
        except RuntimeError:  # the module's own, on the longer text: an error, not a wrong answer
            refused.append(kind)
            continue
        right.append(kind)
    print(f"\nright {right}\nrefused {refused}\nnot tiny {large}\nnot causal {acausal}")
    assert len(right) >= 60
    assert {"rwkv", "bert", "openai-gpt"} <= set(refused)
    assert len(acausal) <= 1


def _without_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Leaves the digits of deviations out, which differ with the processor and its threads."""
    return row | {"notices": [re.sub(r"\b\d[\d.]*(e-\d+)?", "#", each) for each in row["notices"]]}


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_the_table_of_architectures_is_what_is_measured() -> None:
    shown = json.loads(architecture_table.FILE.read_text(encoding="utf-8"))
    if shown["transformers"] != transformers.__version__:
        pytest.skip(f"the table is of transformers {shown['transformers']}")
    measured = [asdict(row) for row in architecture_table.rows() if isinstance(row, architecture_table.Row)]
    assert [_without_numbers(row) for row in measured] == [_without_numbers(row) for row in shown["rows"]]
    decoded = [row for row in measured if row["tier"]]
    assert len(decoded) >= 60
    right = {"equal", "equal without its cache", "generate() fails"}
    assert {row["greedy"] for row in decoded} <= right
    assert {row["beams"] for row in decoded} <= right | {"one row"}


def test_what_the_table_refuses_fails_the_check_but_for_a_few() -> None:
    """Sizes that do not fit together would read as a refusal of the whole architecture."""
    rows = json.loads(architecture_table.FILE.read_text(encoding="utf-8"))["rows"]
    raised = {row["kind"] for row in rows if any("cannot be loaded as" in each for each in row["notices"])}
    own_caches = {"cpmant", "minimax", "prophetnet"}
    assert raised == own_caches


@pytest.mark.parametrize("case", VARIANTS)
def test_variants_of_families_write_what_generate_writes(case: str, tmp_path: Path) -> None:
    kind, own = VARIANTS[case]
    path = make_tiny(tmp_path / "m", kind, **own, vocab_size=TOKENS)
    save_tokenizer(path)
    row = architecture_table.measure(case, path)
    assert (row.tier, row.greedy, row.beams) == ("flat", "equal", "equal")


def test_what_keeps_a_running_state_cannot_take_proposals_back(
    tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    paths = {}
    for kind in ("mamba", "gpt2"):
        paths[kind] = make_tiny(tmp_path / kind, kind, vocab_size=320)
        save_tokenizer(paths[kind])
    for model, draft in (("mamba", "gpt2"), ("gpt2", "mamba")):
        engine = open_engine(model=paths[model], draft=paths[draft])
        seen = watch(engine, Request("the fox", strategy="speculative", max_length=8))
        assert "cannot be rewound" in seen.failed.message
        assert not seen.failed.detail


def test_proposals_beyond_the_last_learned_position(
    tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    path = make_tiny(tmp_path / "gpt2", "gpt2", vocab_size=320, eos_token_id=2)
    save_tokenizer(path)
    engine = open_engine(model=path, draft=path)
    ids = tuple(range(20, 30))
    seen = watch(engine, Request("", ids=ids, strategy="speculative", max_length=54, seed=1))
    assert not seen.all(Failed)
    assert len(seen.ids) == 54 or seen.finished.reason == "eos"
