"""Every kind of tensor against gguf's own reader, and whole models against their safetensors twins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.gguf.header import read_header
from edge_tui.engine.checkpoints.gguf.kinds import FORMS, KINDS, UNREAD
from edge_tui.engine.checkpoints.gguf.unpack import read_groups
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.checkpoints.gguf.files import PACKED, interleave, random_blocks, write_gguf
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from pathlib import Path

WIDE = {"hidden": 256, "intermediate": 256, "heads": 4, "kv_heads": 2, "layers": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biased": {"extra": {"attention_bias": True, "mlp_bias": True}},
    "llama-tied": {"tie": True},
    "mistral": {"extra": {"sliding_window": 12}},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "phi3": {},
}


def same_kind(kind: Type) -> Any:
    return lambda _name: kind


def mixed(name: str) -> Type:
    """A mixture as llama.cpp makes them: the ends and a few matrices in better kinds."""
    kinds = {"token_embd": Type.Q6_K, "output": Type.Q8_0, "attn_v": Type.Q6_K, "attn_q": Type.Q5_0}
    stem = name.removesuffix(".weight").split(".")[-1]
    return kinds.get(stem, Type.Q4_K)


def test_blocks_are_as_large_as_ggml_has_them() -> None:
    for number, kind in KINDS.items():
        assert Type(number).name == kind.name
        assert gguf.GGML_QUANT_SIZES[Type(number)] == (kind.block, kind.bytes)
    assert UNREAD.items() <= {kind.value: kind.name for kind in Type if kind not in KINDS}.items()


@pytest.mark.parametrize("kind", [*PACKED, Type.F32, Type.F16, Type.BF16], ids=lambda kind: kind.name)
def test_a_kind_reads_as_ggufs_own_reader_has_it(kind: Type, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", **WIDE)
    file = write_gguf(folder, tmp_path / "m.gguf", same_kind(kind))
    reader = open_checkpoint(str(file)).open_tensors()
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for name, own in (("mlp.down_proj", "ffn_down"), ("self_attn.v_proj", "attn_v")):
        tensor = stored[f"blk.0.{own}.weight"]
        assert tensor.tensor_type == kind
        expected = torch.tensor(gguf.dequantize(tensor.data, kind))
        assert torch.equal(reader.read(f"model.layers.0.{name}.weight").float(), expected)
    checkpoint = open_checkpoint(str(file))
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        codes = reader.read_codes(name, "cpu")
        assert (codes.form if codes else None) == checkpoint.form_of(name) == FORMS.get(kind.name)
        assert codes is None or torch.equal(codes.dequantise(), reader.read(name))
    assert reader.read_codes("model.norm.weight", "cpu") is None
    tensor = stored["blk.0.attn_q.weight"]
    read = reader.read("model.layers.0.self_attn.q_proj.weight").float().numpy()
    assert np.array_equal(interleave(read, WIDE["heads"]), gguf.dequantize(tensor.data, kind))
    assert not np.array_equal(read, gguf.dequantize(tensor.data, kind)), "queries were not interleaved"


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_codes_are_the_numbers_of_ggufs_own_reader(kind: Type) -> None:
    rng = np.random.default_rng(kind.value)
    data = random_blocks(kind, 64, 512, seed=kind.value)
    wild = rng.integers(0, 256, data.shape, np.uint8)
    for blocks in (data, wild):  # of all bits, some of which make scales infinite
        groups = read_groups(kind.name, torch.tensor(blocks).view(-1, KINDS[kind.value].bytes), 64)
        with np.errstate(all="ignore"):
            expected = torch.tensor(gguf.dequantize(blocks, kind))
        ours = groups.dequantise()
        finite = expected.isfinite() & ours.isfinite()
        assert torch.equal(ours[finite], expected[finite])
        assert finite.float().mean() > 0.8
        assert groups.form == FORMS[kind.name]


@pytest.mark.parametrize("case", FAMILIES)
def test_logits_are_those_of_the_safetensors_twin(case: str, tmp_path: Path) -> None:
    arch = case.partition("-")[0]
    folder = make_checkpoint(tmp_path / "m", arch, **FAMILIES[case])
    file = write_gguf(folder, tmp_path / "m.gguf", fields=window(case))
    assert_same_logits(file, folder)


@pytest.mark.parametrize("case", ["gemma2", "gemma3_text", "gemma3_text of Ollama"])
def test_logits_of_gemma_are_those_of_the_safetensors_twin(case: str, tmp_path: Path) -> None:
    kind, _, ollama = case.partition(" of ")
    period = {"gemma2": 2, "gemma3_text": 6}[kind]
    kinds = ["full_attention" if i % period == period - 1 else "sliding_attention" for i in range(7)]
    caps = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0} if kind == "gemma2" else {}
    rope = {"rope_theta": 100.0} if kind == "gemma2" else {}
    folder = make_tiny(
        tmp_path / "m",
        kind,
        vocab_size=320,
        num_hidden_layers=7,
        sliding_window=9,
        layer_types=kinds,
        **caps,
        **rope,
    )
    save_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["query_pre_attn_scalar"] in (config["head_dim"], 256)
    config["query_pre_attn_scalar"] = config["head_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    arch = kind.removesuffix("_text")
    fields = {
        f"{arch}.attention.sliding_window": 9,
        **{f"{arch}.{key}": value for key, value in caps.items()},
    }
    if ollama:  # its converter has names of its own for the bases, and leaves the epsilon out
        fields |= {"gemma3.attention.layer_norm_rms_epsilon": None, "gemma3.rope.freq_base": None}
        fields |= {"gemma3.rope.global.freq_base": 5e5, "gemma3.rope.local.freq_base": 7e3}
        config["rope_parameters"]["full_attention"]["rope_theta"] = 5e5
        config["rope_parameters"]["sliding_attention"]["rope_theta"] = 7e3
        (folder / "config.json").write_text(json.dumps(config))
    file = write_gguf(folder, tmp_path / "m.gguf", fields=fields)
    assert open_checkpoint(str(file)).config["layer_types"] == kinds
    assert_same_logits(file, folder, tolerance=1e-5)


def window(case: str) -> dict[str, Any]:
    return {"llama.attention.sliding_window": 12} if case == "mistral" else {}


@pytest.mark.parametrize("kinds", [same_kind(Type.F16), same_kind(Type.BF16), mixed])
def test_logits_of_narrow_kinds_are_those_of_the_dequantised_twin(kinds: Any, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "qwen2", **WIDE)
    assert_same_logits(write_gguf(folder, tmp_path / "m.gguf", kinds), folder)


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_greedy_text_is_that_of_the_dequantised_twin(kind: Type, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", **WIDE)
    file = write_gguf(folder, tmp_path / "m.gguf", same_kind(kind))
    ids = []
    for name in (file, folder):
        engine = LocalEngine({"model": ModelSpec(str(name), precision="float32", device="cpu", context=64)})
        ids.append(watch(engine, Request("the quick", chat=False, strategy="greedy", max_length=12)).ids)
        assert engine.close(60.0)
    assert ids[0] == ids[1]
    assert len(set(ids[0])) > 1


def test_a_conversation_is_rendered_by_the_template_of_the_metadata(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", chat_template=True)
    file = write_gguf(folder, tmp_path / "m.gguf")
    runs = []
    for name in (file, folder):
        engine = LocalEngine({"model": ModelSpec(str(name), precision="float32", device="cpu", context=64)})
        runs.append(watch(engine, Request("the quick", chat=True, strategy="greedy", max_length=6)))
        assert engine.close(60.0)
    assert runs[0].started.prompt_tokens == runs[1].started.prompt_tokens > 8
    assert runs[0].ids == runs[1].ids


def test_llama_3s_rotary_factors_are_those_of_its_scaling(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = make_checkpoint(tmp_path / "m", "llama", context=512, rope=scaling)
    plain = 100.0 ** -(torch.arange(0, 16, 2) / 16)
    wavelength = 2 * torch.pi / plain
    smooth = ((64 / wavelength - 1) / 3).clamp(0, 1)
    factors = 1 / ((1 - smooth) / 8 + smooth)
    assert 1 < float(factors[-3]) < 8 or 1 < float(factors[-4]) < 8
    file = write_gguf(folder, tmp_path / "m.gguf", rope_freqs=factors.tolist())
    assert_same_logits(file, folder, tolerance=1e-4)


def test_phi_3s_long_rope(tmp_path: Path) -> None:
    short, long = [1.0 + i / 10 for i in range(8)], [2.0 + i for i in range(8)]
    rope = {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": 32,
        "attention_factor": 1.25,
    }
    folder = make_checkpoint(tmp_path / "m", "phi3", rope=rope)
    fields = {"phi3.rope.scaling.original_context_length": 32, "phi3.rope.scaling.attn_factor": 1.25}
    file = write_gguf(folder, tmp_path / "m.gguf", fields=fields, long_factors=(short, long))
    assert_same_logits(file, folder)


@pytest.mark.parametrize("kind", ["linear", "yarn", None])
def test_stretched_ropes(kind: str | None, tmp_path: Path) -> None:
    """A factor without a kind is a linear one."""
    rope = {"rope_type": kind or "linear", "factor": 4.0, "original_max_position_embeddings": 64}
    folder = make_checkpoint(tmp_path / "m", "qwen2", rope=rope)
    fields = {
        "qwen2.rope.scaling.type": kind,
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 64,
    }
    assert_same_logits(write_gguf(folder, tmp_path / "m.gguf", fields=fields), folder)


def assert_same_logits(file: Path, folder: Path, tolerance: float = 0.0) -> None:
    logits = []
    for name in (file, folder):
        model = load(ModelSpec(str(name), precision="float32", device="cpu", context=256)).model
        ids = torch.arange(5, 45)[None]
        with torch.inference_mode():
            logits.append(model.forward(model.open(1, 64), ids).logits)
    assert torch.isfinite(logits[0]).all()
    assert float((logits[0] - logits[1]).abs().max()) <= tolerance


@pytest.mark.parametrize("precision", ["int8", "4bit", "bfloat16"])
def test_other_precisions_are_made_of_the_dequantised_weights(precision: Any, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", **WIDE)
    file = write_gguf(folder, tmp_path / "m.gguf", same_kind(Type.Q8_0))
    specs = [ModelSpec(str(name), precision=precision, device="cpu", context=64) for name in (file, folder)]
    infos = [load(spec).model.info for spec in specs]
    assert infos[0].precision == infos[1].precision == precision
    assert infos[0].weight_bytes == infos[1].weight_bytes


def test_split_files_are_one_model(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama")
    whole = write_gguf(folder, tmp_path / "m.gguf")
    split = write_gguf(folder, tmp_path / "s.gguf", split_max_tensors=9)
    parts = sorted(tmp_path.glob("s-*.gguf"))
    assert len(parts) == 3
    assert not split.exists()
    twin = load_file(folder / "model.safetensors")
    for part in parts:  # any of them names the model
        checkpoint = open_checkpoint(str(part))
        assert checkpoint.bytes == open_checkpoint(str(whole)).bytes
        reader = checkpoint.open_tensors()
        assert {name for name in twin if torch.equal(reader.read(name), twin[name])} == set(twin)
    assert read_header(parts[1]).metadata["split.no"] == 1
