"""The transformers tier: other architectures, exactly as one full forward call has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.models.transformers_tier import TransformersModel, load_transformers
from edge_tui.errors import Cancelled
from tests.engine.models.references import (
    TOLERANCE,
    config_of,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
    source,
)
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "gpt_neox": SMALL | {"num_attention_heads": 4, "intermediate_size": 48},
    "opt": SMALL | {"num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "gemma2": SMALL | HEADS | {"sliding_window": 7, "query_pre_attn_scalar": 8},
    "gemma3_text": SMALL | HEADS | {"sliding_window": 7, "sliding_window_pattern": 2},
    "mamba": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8},
}
T, CAPACITY = 26, 40


class Case(NamedTuple):
    model: TransformersModel
    path: Path
    ids: Tensor
    logits: Tensor


def make_other(folder: Path, kind: str) -> Path:
    """A random checkpoint of an architecture that the flat tier does not cover."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    ends = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], **ends))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "A_log" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    module.save_pretrained(folder)
    return folder


def load(path: Path, **changes: Any) -> TransformersModel:
    options: dict[str, Any] = {
        "device": "cpu",
        "dtype": torch.float32,
        "precision": "float32",
    }
    return load_transformers(source(path), **(options | changes))


PROOF = ("gpt_neox", "opt", "gemma3_text")
"""Kinds whose caches and positions are like another's."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.proof) if kind in PROOF else kind for kind in CONFIGS],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    path = make_other(tmp_path_factory.mktemp("other"), request.param)
    ids = random_ids(3, T, vocab=96)
    with torch.inference_mode():
        return Case(load(path), path, ids, reference(path)(ids).logits)


def test_one_call(case: Case) -> None:
    out = case.model.forward(case.model.open(3, CAPACITY), case.ids)
    assert deviation(out.logits, case.logits) < TOLERANCE


def test_prefill_then_steps(case: Case) -> None:
    ctx = case.model.open(3, CAPACITY)
    told: list[tuple[int, int]] = []
    got = case.model.prefill(ctx, case.ids[:, :15], chunk=6, progress=lambda a, b: told.append((a, b)))
    assert deviation(got.logits, case.logits[:, 14:15]) < TOLERANCE
    assert told[-1] == (15, 15)
    assert deviation(case.model.forward(ctx, case.ids[:, 15:19]).logits, case.logits[:, 15:19]) < TOLERANCE
    assert deviation(one_by_one(case.model, ctx, case.ids[:, 19:]), case.logits[:, 19:]) < TOLERANCE
    assert ctx.length.tolist() == [T] * 3


def test_ragged_rows_and_reorder(case: Case) -> None:
    ctx = case.model.open(3, CAPACITY)
    case.model.prefill(ctx, case.ids[:, :11], chunk=5)
    lengths, parent = [11, 4, 11] if case.model.caps.rewind else [11] * 3, [2, 0, 1]
    ctx.truncate(torch.tensor(lengths))
    ctx.reorder(torch.tensor(parent))
    at = [lengths[p] for p in parent]
    assert ctx.length.tolist() == at
    for step in range(4):
        ids = torch.stack([case.ids[p, n + step] for p, n in zip(parent, at, strict=True)])[:, None]
        wanted = torch.stack([case.logits[p, n + step] for p, n in zip(parent, at, strict=True)])
        assert deviation(case.model.forward(ctx, ids).logits[:, 0], wanted) < TOLERANCE


def test_fork(case: Case) -> None:
    ctx = case.model.open(1, CAPACITY)
    case.model.prefill(ctx, case.ids[:1, :9])
    twins = ctx.fork(2)
    case.model.forward(ctx, random_ids(1, 3, vocab=96, seed=1))
    got = one_by_one(case.model, twins, case.ids[:1, 9:].expand(2, -1))
    assert deviation(got, case.logits[:1, 9:].expand(2, -1, -1)) < TOLERANCE
    assert case.model.open(1, 4).fork(2).length.tolist() == [0, 0]


def test_truncate(case: Case) -> None:
    ctx = case.model.open(3, CAPACITY)
    case.model.forward(ctx, case.ids)
    keep = [20, 6, 20]
    if not case.model.caps.rewind:
        assert case.model.caps.reason
        with pytest.raises(ValueError, match="cannot forget"):
            ctx.truncate(torch.tensor(keep))
        ctx.truncate(torch.tensor([0, 0, 0]))
        assert deviation(one_by_one(case.model, ctx, case.ids), case.logits) < TOLERANCE
        return
    ctx.truncate(torch.tensor(keep))
    assert ctx.length.tolist() == keep
    ids = torch.stack([case.ids[r, n : n + 5] for r, n in enumerate(keep)])
    wanted = torch.stack([case.logits[r, n : n + 5] for r, n in enumerate(keep)])
    assert deviation(one_by_one(case.model, ctx, ids), wanted) < TOLERANCE


def test_facts(case: Case) -> None:
    info, ctx = case.model.info, case.model.open(2, CAPACITY)
    assert info.tier == "transformers"
    assert info.vocab == 96
    assert info.weight_bytes == 4 * info.parameters
    with torch.inference_mode():
        case.model.forward(ctx, case.ids[:2])
    held = [getattr(layer, n, None) for layer in ctx.groups[0].cache.layers for n in ("keys", "values")]
    assert info.kv_bytes * 2 * T == sum(t.nbytes for t in held if t is not None)


def test_limits(case: Case) -> None:
    ctx = case.model.open(1, 10)
    with pytest.raises(ContextFull, match="holds 10"):
        case.model.prefill(ctx, case.ids[:1])
    with pytest.raises(Cancelled):
        case.model.prefill(ctx, case.ids[:1, :9], cancelled=lambda: True)
    assert ctx.length.tolist() == [0]


@pytest.mark.parametrize("arch", ["qwen3", "phi3"])
def test_both_tiers_agree(arch: str, tmp_path: Path) -> None:
    window = {"sliding_window": 9} if arch in ("mistral", "phi3") else {}
    path = make_checkpoint(tmp_path / arch, arch, extra=window, dtype=torch.bfloat16)
    one, other, ids = flat(path), load(path), random_ids(2, 20)
    a, b = one.open(2, 32), other.open(2, 32)
    assert deviation(one.prefill(a, ids).logits, other.prefill(b, ids).logits) < TOLERANCE
    more = random_ids(2, 6, seed=1)
    assert deviation(one_by_one(one, a, more), one_by_one(other, b, more)) < TOLERANCE
    assert a.length.tolist() == b.length.tolist()
    ours, theirs = one.info, other.info
    assert (ours.vocab, ours.kv_bytes, ours.parameters, ours.context) == (
        theirs.vocab,
        theirs.kv_bytes,
        theirs.parameters,
        theirs.context,
    )


def test_int8_on_the_cpu(tmp_path: Path) -> None:
    path = make_other(tmp_path / "gpt2", "gpt2")
    wide, narrow, ids = load(path), load(path, precision="int8"), random_ids(1, 12, vocab=96)
    got = narrow.forward(narrow.open(1, 16), ids).logits
    error = deviation(got, wide.forward(wide.open(1, 16), ids).logits)
    assert 0 < error < 0.05
    assert narrow.info.parameters == wide.info.parameters
    assert narrow.info.weight_bytes < wide.info.weight_bytes
    assert narrow.info.precision == "int8"


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    path = make_other(tmp_path / "gpt2", "gpt2")
    file = path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load(path)
    file.write_bytes(whole)
    config = config_of(path)
    (path / "config.json").write_text(json.dumps(config | {"n_layer": 4}), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"no tensor transformer\.h\.3"):
        load(path)


def test_a_known_class_with_another_models_tensors_is_refused(tmp_path: Path) -> None:
    """Its config asks for what the flat tier leaves to this one, whose class does not know it either."""
    path = make_checkpoint(tmp_path / "m", "llama", extra={"alibi": True})
    load(path)
    other = make_checkpoint(tmp_path / "other", "qwen3", head_dim=16)
    (other / "model.safetensors").rename(path / "model.safetensors")
    with pytest.raises(WeightsError, match="which no LlamaForCausalLM of its"):
        load(path)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    path = make_other(tmp_path / "gpt2", "gpt2")
    code = 'from pathlib import Path\nPath(__file__).with_name("ran").touch()\n'
    (path / "modeling_own.py").write_text(code, encoding="utf-8")
    config = config_of(path)
    own = {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    (path / "config.json").write_text(json.dumps(config | own), encoding="utf-8")
    with pytest.raises(WeightsError, match="gpt2"):
        load(path)
    assert not list(tmp_path.rglob("ran"))


def test_remote_code_is_not_preferred_to_the_librarys_own(tmp_path: Path) -> None:
    path, ran = make_other(tmp_path / "gpt2", "gpt2"), tmp_path / "ran"
    (path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    auto_map = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config = config_of(path) | {"auto_map": auto_map}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load(path).info.architecture == "GPT2LMHeadModel"
    assert not ran.exists()


def test_release(tmp_path: Path) -> None:
    model = load(make_other(tmp_path / "gpt2", "gpt2"))
    ctx = model.open(1, 8)
    model.release()
    with pytest.raises(RuntimeError, match="released"):
        model.forward(ctx, random_ids(1, 1, vocab=96))
