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

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor


STD = 0.02
"""Standard deviation of every matrix: the usual one at the start of training, which keeps logits finite."""

Config = dict[str, Any]
"""A config.json."""


_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "vocab_size", "tie_word_embeddings"),
)
_QWEN2: Config = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
_LLAMA: Config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
_LLAMA3: Config = _LLAMA | {
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_PHI3: Config = _LLAMA | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "pad_token_id": None,
}
_QWEN3_MOE: Config = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
}
_GEMMA2: Config = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_GEMMA3: Config = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}
_OLMO2: Config = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
}
_HUNYUAN: Config = {
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "model_type": "hunyuan_v1_dense",
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0},
}
"""A family that only transformers knows."""


def _config(family: Config, *sizes: int) -> Config:
    return family | dict(zip(_SIZES, sizes, strict=True))


CONFIGS: dict[str, tuple[Config, int]] = {
    "qwen2-0.5b": (_config(_QWEN2, 896, 4864, 24, 14, 2, 151936, True), 151646),
    "qwen2-1.5b": (_config(_QWEN2, 1536, 8960, 28, 12, 2, 151936, True), 151646),
    "qwen2-7b": (_config(_QWEN2, 3584, 18944, 28, 28, 4, 152064, False), 151646),
    "phi-3-mini": (_config(_PHI3, 3072, 8192, 32, 32, 32, 32064, False), 32011),
    "llama-2-7b": (_config(_LLAMA, 4096, 11008, 32, 32, 32, 32000, False), 32000),
    "llama-3.2-1b": (_config(_LLAMA3, 2048, 8192, 16, 32, 8, 128256, True), 128256),
    "qwen3-30b-a3b": (_config(_QWEN3_MOE, 2048, 6144, 48, 32, 4, 151936, False), 151669),
    "gemma-2-2b": (_config(_GEMMA2, 2304, 9216, 26, 8, 4, 256000, True), 256000),
    "gemma-3-1b": (_config(_GEMMA3, 1152, 6912, 26, 4, 1, 262144, True), 262144),
    "olmo-2-1b": (_config(_OLMO2, 2048, 8192, 16, 16, 16, 100352, False), 100278),
    "hunyuan-0.5b": (_config(_HUNYUAN, 1024, 3584, 24, 16, 8, 120818, True), 120000),
    "hunyuan-7b": (_config(_HUNYUAN, 4096, 14336, 32, 32, 8, 128167, True), 127000),
    "tiny": (_config(_QWEN2, 64, 160, 2, 4, 2, 640, True), 600),
}
"""config.json and number of tokens of the tokenizer, by name. `tiny` is for trying the bench out."""


class RandomWeights(Weights):
    """Makes tensors with random numbers on the device in place of reading a folder's files.

    Norms are 1 and biases 0. The arguments are those of `Weights`.

    Attributes:
        seconds: Spent making tensors.
    """

    def __init__(self, *arguments: Any) -> None:
        import torch

        super().__init__(*arguments)
        self._rng = torch.Generator(self.device).manual_seed(0)
        self.seconds = 0.0

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Makes a tensor of this shape: ones for norms, zeros for biases, else random numbers."""
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
        return tensor


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
    ends = {"torch_dtype": "bfloat16", "bos_token_id": None, "eos_token_id": None}
    _write_json(folder / "config.json", config | ends)
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    _write_tokenizer(folder / "tokenizer.json", tokens)
    entries: dict[str, Any] = {}
    at = 0
    for tensor, shape in _shapes(config).items():
        size = 2 * prod(shape)
        entries[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)
    return folder


def _write_json(file: Path, value: Config) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def _write_tokenizer(file: Path, tokens: int) -> None:
    """Writes a byte-level tokenizer without merges: one token a byte, and fillers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    token_strings = alphabet + [f"Ġ{number:x}" for number in range(tokens - len(alphabet))]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(token_strings)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(file), pretty=False)


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Reads names and shapes of a checkpoint's tensors off transformers' own model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    tied = {"lm_head.weight"} if config["tie_word_embeddings"] else set()
    return {name: tuple(each.shape) for name, each in model.state_dict().items() if name not in tied}
