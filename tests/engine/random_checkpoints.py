"""Small random checkpoints on disk, in the layouts that the hub really holds.

Every parameter is random: default-initialised biases are 0 and norms 1, which hides a forgotten bias or a
wrong norm, and tiny weights leave the argmax blind to rotary mistakes. Tensor names and shapes are written
down here rather than taken from a modelling library, so that making a checkpoint needs only torch.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS_ID, IM_START_ID, IM_END_ID = range(3)
TOKENS = 300
"""Entries of the tokenizer; checkpoints may pad their embeddings beyond it."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the dog thinks about that for a long while",
    "once upon a time there was a little river in the north that nobody had ever given a name",
    "The rain in the mountains is there in the morning, and the thunder is there at night.",
)


def make_checkpoint(
    folder: Path,
    arch: str = "qwen2",
    *,
    vocab: int = 320,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    intermediate: int = 96,
    context: int = 256,
    tie: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    layout: str = "new",
    rope: Mapping[str, Any] | None = None,
    theta: float = 100.0,
    chat_template: bool = False,
    generation: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    std: float = 0.2,
    seed: int = 0,
) -> Path:
    """Writes a checkpoint as the hub lays it out and returns its folder.

    Args:
        folder: Created if missing.
        arch: A key of `ARCHITECTURES`.
        vocab: Rows of the embedding, at least `TOKENS`.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head; `hidden // heads` where not given, and then not in config.json either.
        intermediate: Width of the gated feed-forward layer.
        context: `max_position_embeddings`.
        tie: Whether the head is the embedding.
        dtype: Of every tensor on disk.
        shards: Files to spread the tensors over; with more than one an index is written.
        layout: "new" (`rope_parameters`, `dtype`, `chat_template.jinja`) or "old" (`rope_theta`,
            `rope_scaling`, `torch_dtype`, template inside `tokenizer_config.json`).
        rope: Rotary scaling with its `rope_type`, e.g. `{"rope_type": "linear", "factor": 2.0}`.
        theta: Rotary base; small, so that a tiny model feels every position.
        chat_template: Whether a ChatML template comes along.
        generation: Entries of generation_config.json besides the end-of-sequence id.
        extra: Further entries of config.json; the biases follow `attention_bias` and `mlp_bias`.
        std: Standard deviation of every parameter (norms lie around 1).
        seed: Of the random numbers; the same arguments give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[arch]],
        "model_type": arch,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tie,
        "bos_token_id": EOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": EOS_ID,
    }
    if head_dim is not None:
        config["head_dim"] = head_dim
    if arch == "mistral":
        config["sliding_window"] = None
    scaling = dict(rope or {})
    if arch == "phi3":
        config["original_max_position_embeddings"] = scaling.pop("original_max_position_embeddings", context)
    name = str(dtype).removeprefix("torch.")
    if layout == "new":
        config |= {"dtype": name, "rope_parameters": {"rope_type": "default", **scaling, "rope_theta": theta}}
    else:
        if scaling and arch != "llama":
            scaling["type"] = scaling.pop("rope_type")
        config |= {"torch_dtype": name, "rope_theta": theta, "rope_scaling": scaling or None}
    config |= dict(extra or {})
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": EOS_ID, **(generation or {})})
    save_tensors(folder, random_tensors(config, std, seed, dtype), shards)
    save_tokenizer(folder, chat_template=chat_template, layout=layout)
    return folder


def random_tensors(config: Mapping[str, Any], std: float, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """A state dict for the config, drawn in a fixed order."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(config):
        value = torch.randn(shape, generator=rng) * std
        tensors[name] = (value + 1.0 if name.endswith("norm.weight") else value).to(dtype)
    return tensors


def tensor_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a checkpoint's tensors."""
    arch, hidden, wide = config["model_type"], config["hidden_size"], config["intermediate_size"]
    dim = config.get("head_dim") or (128 if arch == "qwen3" else hidden // config["num_attention_heads"])
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    qkv_bias = arch == "qwen2" or config.get("attention_bias", False)
    o_bias = arch != "qwen2" and config.get("attention_bias", False)
    mlp_bias = config.get("mlp_bias", False)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (hidden,)
        if arch == "phi3":
            yield p + "self_attn.qkv_proj.weight", (q + 2 * kv, hidden)
        else:
            for part, width in (("q", q), ("k", kv), ("v", kv)):
                yield p + f"self_attn.{part}_proj.weight", (width, hidden)
                if qkv_bias:
                    yield p + f"self_attn.{part}_proj.bias", (width,)
        if arch == "qwen3":
            yield p + "self_attn.q_norm.weight", (dim,)
            yield p + "self_attn.k_norm.weight", (dim,)
        yield p + "self_attn.o_proj.weight", (hidden, q)
        if o_bias:
            yield p + "self_attn.o_proj.bias", (hidden,)
        yield p + "post_attention_layernorm.weight", (hidden,)
        if arch == "phi3":
            yield p + "mlp.gate_up_proj.weight", (2 * wide, hidden)
        else:
            for part in ("gate", "up"):
                yield p + f"mlp.{part}_proj.weight", (wide, hidden)
                if mlp_bias:
                    yield p + f"mlp.{part}_proj.bias", (wide,)
        yield p + "mlp.down_proj.weight", (hidden, wide)
        if mlp_bias:
            yield p + "mlp.down_proj.bias", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def save_tensors(folder: Path, tensors: dict[str, Tensor], shards: int = 1) -> None:
    """Writes one `model.safetensors`, or several shards and their index."""
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata=metadata)
        return
    names = list(tensors)
    where: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        mine = names[i::shards]
        save_file({name: tensors[name] for name in mine}, folder / file, metadata=metadata)
        where |= dict.fromkeys(mine, file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    _write_json(folder / "model.safetensors.index.json", index)


def save_tokenizer(folder: Path, *, chat_template: bool = False, layout: str = "new") -> None:
    """Writes a byte-level BPE tokenizer of `TOKENS` entries; any text survives a round trip."""
    (folder / "tokenizer.json").write_text(_tokenizer_json(), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[EOS_ID],
        "pad_token": SPECIAL[EOS_ID],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    if chat_template and layout == "new":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    elif chat_template:
        config["chat_template"] = CHAT_TEMPLATE
    _write_json(folder / "tokenizer_config.json", config)


@cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if tokenizer.get_vocab_size() != TOKENS:
        raise AssertionError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {TOKENS}")
    return str(tokenizer.to_str())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def store_bitsandbytes(
    folder: Path, kind: str, *, nested: bool = False, skip: tuple[str, ...] = (), blocksize: int = 64
) -> Path:
    """Quantises a checkpoint's matrices in place as transformers and bitsandbytes save them.

    Args:
        folder: Holds `model.safetensors`.
        kind: "nf4", "fp4" or "int8".
        nested: Whether the scales of 4 bits are quantised themselves.
        skip: Parts of names that stay as they are, besides the head's.
        blocksize: Weights that share a scale of 4 bits.
    """
    import logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes import functional

    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        plain = tensor.dim() != 2 or any(part in name for part in ("embed", "wte", "wpe", "lm_head", *skip))
        if plain:
            tensors[name] = tensor
        elif kind == "int8":
            codes, scales, _ = functional.int8_vectorwise_quant(tensor.half())
            base = name.removesuffix("weight")
            tensors |= {name: codes, base + "SCB": scales, base + "weight_format": torch.tensor(0).byte()}
        else:
            codes, state = functional.quantize_4bit(
                tensor, blocksize=blocksize, compress_statistics=nested, quant_type=kind
            )
            parts = state.as_dict(packed=True)
            tensors |= {name: codes} | {f"{name}.{part}": value.clone() for part, value in parts.items()}
    save_tensors(folder, tensors)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": kind == "int8", "load_in_4bit": kind != "int8"}
    if kind != "int8":
        stored |= {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}
    _write_json(folder / "config.json", config | {"quantization_config": stored})
    return folder


def dequantise_bitsandbytes(stored: Path, plain: Path) -> Path:
    """Writes the same checkpoint in float32, by bitsandbytes' own dequantisation."""
    from bitsandbytes import functional

    tensors = load_file(stored / "model.safetensors")
    codes = {n.partition(".quant_state.")[0]: n for n in tensors if ".quant_state." in n}
    out = {}
    for name, tensor in tensors.items():
        if name in codes:
            parts = {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
            state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
            out[name] = functional.dequantize_4bit(tensor, state).float()
        elif name.removesuffix("weight") + "SCB" in tensors:
            out[name] = tensor.float() * tensors[name.removesuffix("weight") + "SCB"][:, None] / 127
        elif "SCB" not in name and "weight_format" not in name and ".weight." not in name:
            out[name] = tensor.float()
    shutil.copytree(stored, plain)
    config = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    if config["model_type"] == "gpt2":  # stored the other way round than its modules have them
        turned = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
        out = {n: t.t().contiguous() if n.endswith(turned) and n in codes else t for n, t in out.items()}
    save_tensors(plain, out)
    _write_json(plain / "config.json", config)
    return plain
