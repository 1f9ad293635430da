"""Writes GGUF files from the random checkpoints of the tests, as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PACKED = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K)
_HALVES = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,), Type.Q4_0: (0,), Type.Q8_0: (0,)}
_HALVES |= {Type.Q4_1: (0, 2), Type.Q5_0: (0,), Type.Q5_1: (0, 2)}
"""Where the float16 scales of a block lie."""
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


_SCALES = {Type.Q4_0: 0.04, Type.Q4_1: 0.04, Type.Q5_0: 0.02, Type.Q5_1: 0.02, Type.Q8_0: 0.0027}
_SCALES |= {Type.Q4_K: 0.001, Type.Q5_K: 0.0005, Type.Q6_K: 0.00015}
"""The scale with which the numbers have a deviation of some 0.2."""
_CENTRES = {Type.Q4_1: -7.5, Type.Q5_1: -15.5, Type.Q4_K: 7.5, Type.Q5_K: 15.5}
"""The second scale by the first, with which the numbers have a mean of 0."""


_GEMMA_NAMES = {
    "pre_feedforward_layernorm": "ffn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, arch: str = "llama") -> str:
    """Names a tensor as GGUF does."""
    names = _NAMES | (_GEMMA_NAMES if arch.startswith("gemma") else {})
    stem, _, suffix = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    return f"blk.{layer[1]}.{names[layer[2]]}.{suffix}" if layer else f"{names[stem]}.{suffix}"


def interleave(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Lays the rows of a head's halves out in turn, as convert_hf_to_gguf.py does for Llama."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def random_blocks(kind: Type, rows: int, columns: int, seed: int) -> np.ndarray[Any, Any]:
    """Makes rows of random blocks with small finite scales: uint8 `[rows, bytes]`."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (rows * columns // block, size), np.uint8)
    scales = rng.uniform(0.5, 1.5, (len(blocks), 1)) * _SCALES[kind]
    for at, factor in zip(_HALVES[kind], (1.0, _CENTRES.get(kind, 0.0)), strict=False):
        blocks[:, at : at + 2] = (scales * factor).astype("<f2").view(np.uint8)
    return blocks.reshape(rows, -1)


def write_gguf(
    folder: Path,
    file: Path,
    kinds: Callable[[str], Type] = lambda _: Type.F32,
    fields: Mapping[str, Any] | None = None,
    rope_freqs: list[float] | None = None,
    long_factors: tuple[list[float], list[float]] | None = None,
    **writer: Any,
) -> Path:
    """Writes a checkpoint as a GGUF file, and its weights back to the folder as the file has them.

    Args:
        folder: A checkpoint of `make_checkpoint`; its weights become what dequantising the file gives.
        file: The file to write.
        kinds: Gives a matrix's kind by its name in the file; vectors are float32.
        fields: Further metadata, or other values for what is written; None leaves a field out.
        rope_freqs: Divisors of the rotary frequencies.
        long_factors: Short and long factors of Phi-3's long rope.
        **writer: Arguments of `gguf.GGUFWriter`.
    """
    config = json.loads((folder / "config.json").read_text())
    arch = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config["model_type"], config["model_type"])
    out = gguf.GGUFWriter(file, arch, **writer)
    _write_fields(out, arch, config, folder, dict(fields or {}))
    twin = {}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for at, (name, tensor) in enumerate(load_file(folder / "model.safetensors").items()):
        own, value = gguf_name(name, arch), tensor.float().numpy()
        offset = arch.startswith("gemma") and name.endswith("norm.weight")
        part = name.split(".")[-2]
        turned = arch == "llama" and part in heads
        kind = kinds(own) if value.ndim > 1 else Type.F32
        if kind in PACKED:
            packed = random_blocks(kind, *value.shape, seed=at)
            value = gguf.dequantize(packed, kind)
            data = packed
        elif kind == Type.BF16:
            data = gguf.quantize(value, kind)
            value = gguf.dequantize(data, kind)
        else:
            data = (value + offset).astype(np.float16 if kind == Type.F16 else np.float32)
            value = data.astype(np.float32) - offset
        out.add_tensor(own, interleave(data, heads[part]) if turned else data, raw_dtype=kind)
        twin[name] = torch.from_numpy(np.ascontiguousarray(value))
    if rope_freqs:
        out.add_tensor("rope_freqs.weight", np.array(rope_freqs, np.float32))
    for name, factors in zip(("short", "long"), long_factors or (), strict=False):
        out.add_tensor(f"rope_factors_{name}.weight", np.array(factors, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    save_file(twin, folder / "model.safetensors", {"format": "pt"})
    return file


def _write_fields(
    out: gguf.GGUFWriter, arch: str, config: Mapping[str, Any], folder: Path, fields: dict[str, Any]
) -> None:
    rope = config.get("rope_parameters") or config
    rope = rope.get("full_attention", rope)
    head_dim = config.get("head_dim") or (
        128 if arch == "qwen3" else config["hidden_size"] // config["num_attention_heads"]
    )
    values: dict[str, Any] = {
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": config["num_attention_heads"],
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{arch}.rope.freq_base": float(rope["rope_theta"]),
        **tokenizer_fields(folder),
        **fields,
    }
    for key, value in values.items():
        add(out, key, value)


def tokenizer_fields(folder: Path) -> dict[str, Any]:
    """Returns the metadata that a converter makes of tokenizer.json."""
    stored = json.loads((folder / "tokenizer.json").read_text())
    added = {token["id"] for token in stored["added_tokens"]}
    vocab = stored["model"]["vocab"] | {token["content"]: token["id"] for token in stored["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in stored["model"]["merges"]]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = folder / "chat_template.jinja"
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i in added else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": vocab[settings["eos_token"]],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template.read_text() if template.exists() else None,
    }


def add(out: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Writes one entry of metadata; None is left out."""
    match value:
        case None:
            return
        case bool():
            out.add_bool(key, value)
        case int():
            out.add_uint32(key, value)
        case np.int32():
            out.add_int32(key, int(value))
        case float():
            out.add_float32(key, value)
        case str():
            out.add_string(key, value)
        case _:
            out.add_array(key, value)
