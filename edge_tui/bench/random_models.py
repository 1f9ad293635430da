"""Writes checkpoints of a named architecture's true size, and fills them with random weights at the load.

The folder has config.json with the real numbers, a tokenizer of the real size, and a weight file that is a
header and one hole, so that it takes no room on the disk. Its tensors are never read: `RandomWeights` takes
the file's place while the engine loads the model as it loads any other.
"""

from __future__ import annotations

import json
import time
from math import prod
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.models.architectures import FlatConfig, flat_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from edge_tui.engine.checkpoints.source import TensorReader

STD = 0.02
"""Standard deviation of every matrix: the usual one at the start of training, which keeps logits finite."""

Config = dict[str, Any]
"""A config.json."""


def _qwen2(
    hidden: int, wide: int, layers: int, heads: int, kv: int, vocab: int, tied: bool
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
    }


def _llama(
    hidden: int, wide: int, layers: int, heads: int, kv: int, vocab: int, tied: bool
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_PHI3 = _llama(3072, 8192, 32, 32, 32, 32064, False) | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "pad_token_id": None,
}

CONFIGS: dict[str, tuple[Config, int]] = {
    "qwen2-0.5b": (_qwen2(896, 4864, 24, 14, 2, 151936, True), 151646),
    "qwen2-1.5b": (_qwen2(1536, 8960, 28, 12, 2, 151936, True), 151646),
    "qwen2-7b": (_qwen2(3584, 18944, 28, 28, 4, 152064, False), 151646),
    "phi-3-mini": (_PHI3, 32011),
    "llama-2-7b": (_llama(4096, 11008, 32, 32, 32, 32000, False), 32000),
    "llama-3.2-1b": (
        _llama(2048, 8192, 16, 32, 8, 128256, True)
        | {
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
            "rope_scaling": _LLAMA3_ROPE,
        },
        128256,
    ),
    "tiny": (_qwen2(64, 160, 2, 4, 2, 640, True), 600),
}
"""config.json and number of tokens of the tokenizer, by name. `tiny` is for trying the bench out."""


class RandomWeights(Weights):
    """Makes tensors with random numbers on the device in place of reading a folder's files.

    Norms are 1 and biases 0.

    Attributes:
        seconds: Spent making tensors.
    """

    def __init__(
        self,
        reader: TensorReader,
        device: str,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        import torch

        super().__init__(reader, device, dtype, progress, cancelled)
        self._rng = torch.Generator(device).manual_seed(0)
        self.seconds = 0.0

    def _tensor(self, name: str, shape: tuple[int, ...]) -> tuple[Tensor, int]:
        import torch

        began = time.perf_counter()
        if name.endswith("norm.weight"):
            tensor = torch.ones(shape, dtype=self.dtype, device=self.device)
        elif name.endswith(".bias"):
            tensor = torch.zeros(shape, dtype=self.dtype, device=self.device)
        else:
            tensor = torch.empty(shape, dtype=self.dtype, device=self.device)
            fill(tensor, self._rng)
            if self.dtype == torch.float32:
                tensor = tensor.bfloat16().float()  # as read from a file in 16 bits
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
        self.seconds += time.perf_counter() - began
        return tensor, 2 * tensor.numel()


def fill(tensor: Tensor, rng: torch.Generator) -> None:
    """Fills with normal numbers of deviation `STD`; a CPU, which draws slowly, repeats a million of them."""
    import torch

    block = 1 << 20
    if tensor.is_cuda or tensor.numel() <= block:
        tensor.normal_(0.0, STD, generator=rng)
        return
    values = torch.empty(block, dtype=torch.float32, device=tensor.device).normal_(0.0, STD, generator=rng)
    flat, values = tensor.view(-1), values.to(tensor.dtype)
    for at in range(0, flat.numel(), block):
        part = flat[at : at + block]
        part.copy_(values[: part.numel()])


def write_random(folder: Path, name: str) -> Path:
    """Writes the folder of a random model: a few MB, whatever its size.

    Args:
        folder: Where; its name becomes the model's.
        name: A key of `CONFIGS`.
    """
    config, tokens = CONFIGS[name]
    folder.mkdir(parents=True, exist_ok=True)
    _json(
        folder / "config.json",
        config | {"torch_dtype": "bfloat16", "bos_token_id": None, "eos_token_id": None},
    )
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    _json(folder / "tokenizer.json", tokenizer(tokens))
    entries: dict[str, Any] = {}
    at = 0
    for tensor, shape in tensor_shapes(flat_config(config)):
        size = 2 * prod(shape)
        entries[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)
    return folder


def tokenizer(tokens: int) -> dict[str, Any]:
    """Makes tokenizer.json of a byte-level tokenizer without merges: one token a byte, and fillers."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    token_strings = alphabet + [f"Ġ{number:x}" for number in range(tokens - len(alphabet))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(token_strings)}, "merges": []},
    }


def tensor_shapes(c: FlatConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Lists names and shapes of a checkpoint's tensors."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    qkv = {"qkv_proj": q + 2 * kv} if c.fused else {"q_proj": q, "k_proj": kv, "v_proj": kv}
    gate_up = (
        {"gate_up_proj": 2 * c.intermediate}
        if c.fused
        else dict.fromkeys(("gate_proj", "up_proj"), c.intermediate)
    )
    yield "model.embed_tokens.weight", (c.vocab, c.hidden)
    for i in range(c.layers):
        prefix = f"model.layers.{i}."
        yield f"{prefix}input_layernorm.weight", (c.hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (c.hidden,)
        for part, rows in qkv.items():
            yield f"{prefix}self_attn.{part}.weight", (rows, c.hidden)
            if c.qkv_bias:
                yield f"{prefix}self_attn.{part}.bias", (rows,)
        yield f"{prefix}self_attn.o_proj.weight", (c.hidden, q)
        for part, rows in gate_up.items():
            yield f"{prefix}mlp.{part}.weight", (rows, c.hidden)
        yield f"{prefix}mlp.down_proj.weight", (c.hidden, c.intermediate)
    yield "model.norm.weight", (c.hidden,)
    if not c.tied:
        yield "lm_head.weight", (c.vocab, c.hidden)


def _json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
