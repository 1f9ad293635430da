"""Turns a GGUF header into what config.json would say, and into the names and shapes that it implies.

Every shape that the metadata implies is held against the file's tensors before anything is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.gguf.header import GgufTensor, Header
from edge_tui.engine.checkpoints.gguf.metadata import Metadata
from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Architecture:
    """Describes one architecture of GGUF files.

    Attributes:
        model_type: Its name in config.json.
        model_class: Its class there.
        roles: Matrices and norms of each layer, as GGUF names them.
        interleaved: True if rows of queries and keys lie pair by pair, as llama.cpp rotates them, and not
            in halves.
        names: Names of roles that are not Llama's.
        norm_offset: Excess of the stored weights of norms over those of a Hugging Face checkpoint.
    """

    model_type: str
    model_class: str
    roles: tuple[str, ...]
    interleaved: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    norm_offset: float = 0.0


_REST = ("attn_norm", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
_SPLIT = ("attn_q", "attn_k", "attn_v", "ffn_gate", *_REST)
_FUSED = ("attn_qkv", *_REST)
_GEMMA = (*_SPLIT, "post_attention_norm", "post_ffw_norm")
_GEMMA_NAMES = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_WIDE_HEADS = {("gemma2", 46), ("gemma3_text", 62)}
"""Model types and layers of the models of 27B, whose scores are scaled by another width than a head's."""
ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", _SPLIT, interleaved=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _SPLIT),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", (*_SPLIT, "attn_q_norm", "attn_k_norm")),
    "phi3": Architecture("phi3", "Phi3ForCausalLM", _FUSED),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", _GEMMA, names=_GEMMA_NAMES, norm_offset=1.0),
    "gemma3": Architecture(
        "gemma3_text",
        "Gemma3ForCausalLM",
        (*_GEMMA, "attn_q_norm", "attn_k_norm"),
        names=_GEMMA_NAMES,
        norm_offset=1.0,
    ),
}
"""Architectures that are read, by `general.architecture`. Mistral is stored as llama."""
_ROLES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ENDS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that belong to the configuration."""
_FEATURES = (
    *("attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.temperature_scale"),
    *("attention.temperature_length", "attention.shared_kv_layers", "attention.layer_norm_epsilon"),
    *("attention.key_length_swa", "embedding_length_per_layer_input", "use_parallel_residual", "swin_norm"),
    "router_logit_softcapping",
)
"""Keys of features that no architecture here has."""
_SCALES = ("logit_scale", "embedding_scale", "residual_scale")
"""The same, of factors, where 1 asks for nothing."""
_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""Keys of Gemma's caps, and what they are in Gemma 2 where metadata is silent."""
_LAYER = re.compile(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)")
_MAX_LAYERS = 10_000
"""Layers whose types are listed; more are refused once they are counted."""


def architecture_of(name: str, header: Header) -> Architecture:
    """Returns the architecture of a file.

    Raises:
        CheckpointError: it is not one that is read.
    """
    stated = header.metadata.get("general.architecture")
    found = ARCHITECTURES.get(stated) if isinstance(stated, str) else None
    if found is None:
        what = one_line(str(stated))[:60] if stated is not None else "no architecture"
        raise CheckpointError(
            f"{name} is a GGUF file of {what}, and {', '.join(ARCHITECTURES)} are read; "
            "take its safetensors checkpoint."
        )
    return found


def read_config(
    name: str, header: Header, tensors: Mapping[str, GgufTensor], factors: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Returns config.json's keys and values.

    Args:
        name: As the user named the model.
        header: The first file's.
        tensors: Those of all files.
        factors: Values of the tensors in `ROPE_FACTORS` that there are.

    Raises:
        CheckpointError: the metadata is incomplete, contradicts itself, or has a feature that is not read.
    """
    architecture = architecture_of(name, header)
    prefix = str(header.metadata["general.architecture"])
    stated = Metadata(name, header, prefix)
    if stated.has("expert_count"):
        raise CheckpointError(
            f"{name} is a mixture of experts, which is not read from GGUF; take its safetensors checkpoint."
        )
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise IncompleteCheckpoint(
            f"{name} has no tensor token_embd.weight of two dimensions; fetch it again."
        )
    heads, hidden = stated.whole("attention.head_count"), stated.whole("embedding_length")
    head_dim = stated.whole("attention.key_length", max(hidden // heads, 1))
    if stated.whole("attention.value_length", head_dim) != head_dim or head_dim % 2:
        raise CheckpointError(f"{name} has heads of a width that is not read; take another file.")
    _refuse_features(name, stated, architecture)
    biases = {key.split(".")[2] for key in tensors if key.endswith(".bias")}
    config: dict[str, Any] = {
        "architectures": [architecture.model_class],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": stated.whole("feed_forward_length"),
        "num_hidden_layers": stated.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": stated.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": stated.whole("context_length"),
        "rms_norm_eps": stated.real("attention.layer_norm_rms_epsilon", 1e-6 if architecture.names else None),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "attn_output" in biases,
        "mlp_bias": "ffn_down" in biases,
    }
    window = stated.whole("attention.sliding_window") if stated.has("attention.sliding_window") else 0
    if architecture.model_type == "phi3":
        config["sliding_window"] = window or None
    elif architecture.model_type == "llama" and 0 < window < config["max_position_embeddings"]:
        config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": window}
    config |= _rope(name, stated, config, factors)
    return config | _gemma(stated, config, window) if architecture.names else config


def _refuse_features(name: str, stated: Metadata, architecture: Architecture) -> None:
    """Refuses metadata that asks for what the architecture does not do.

    Raises:
        CheckpointError: there is such a key.
    """
    others = _FEATURES if architecture.names else (*_FEATURES, *_CAPS)
    found = [key for key in others if stated.has(key)]
    found += [key for key in _SCALES if stated.has(key) and stated.real(key) != 1.0]
    if stated.denies("attention.causal"):
        found.append("attention.causal")
    if found:
        raise CheckpointError(
            f"{name} has {found[0]} in its metadata, which {architecture.model_type} models do not have; "
            "take its safetensors checkpoint."
        )


def _gemma(stated: Metadata, config: Mapping[str, Any], window: int) -> dict[str, Any]:
    """Returns what config.json says of Gemma alone, some of which llama.cpp knows without metadata."""
    second, layers = config["model_type"] == "gemma2", config["num_hidden_layers"]
    window = window or (4096 if second else 0)
    period = (2 if second else 6) if window else 1
    wide = (config["model_type"], layers) in _WIDE_HEADS
    kinds = ("full_attention", "sliding_attention")
    own: dict[str, Any] = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config["head_dim"],
        "sliding_window": window or None,
        "layer_types": [kinds[(i + 1) % period > 0] for i in range(min(layers, _MAX_LAYERS))],
    }
    if wide:
        own["query_pre_attn_scalar"] = config["hidden_size"] // config["num_attention_heads"]
    for key, default in _CAPS.items():
        own[key] = stated.real(key, default) if second or stated.has(key) else None
    if not second:
        base = stated.real("rope.freq_base_swa", stated.real("rope.local.freq_base", 10000.0))
        local = {"rope_type": "default", "rope_theta": base}
        own["rope_parameters"] = {"full_attention": config["rope_parameters"], "sliding_attention": local}
    return own


def _rope(
    name: str, stated: Metadata, config: Mapping[str, Any], factors: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Returns the settings of the rotary embedding."""
    scaling: dict[str, Any] = {"rope_type": "default"}
    factors_by_age = ("rope.scaling.factor", "rope.scale_linear")
    factor = next((stated.real(key) for key in factors_by_age if stated.has(key)), 1.0)
    kind = stated.text("rope.scaling.type") or ("none" if factor == 1.0 else "linear")
    context = config["max_position_embeddings"]
    original = stated.whole("rope.scaling.original_context_length", context)
    long, short = factors.get("rope_factors_long.weight"), factors.get("rope_factors_short.weight")
    if long and short:
        scaling = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
        if stated.has("rope.scaling.attn_factor"):
            scaling["attention_factor"] = stated.real("rope.scaling.attn_factor")
    elif "rope_freqs.weight" in factors:
        scaling = {"rope_type": "factors", "factors": factors["rope_freqs.weight"]}
    elif kind in ("linear", "yarn"):
        scaling = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            scaling["original_max_position_embeddings"] = original
    elif kind != "none":
        raise CheckpointError(
            f"{name} scales its rotary embedding by {one_line(kind)[:40]}, which is not read; "
            "take its safetensors checkpoint."
        )
    known = {"type", "factor", "original_context_length", "attn_factor", "finetuned"}
    if scaling["rope_type"] == "yarn" and (strange := stated.keys("rope.scaling.") - known):
        raise CheckpointError(
            f"{name} scales its rotary embedding with {one_line(min(strange))[:60]}, which is not read; "
            "take its safetensors checkpoint."
        )
    rotated = stated.whole("rope.dimension_count", config["head_dim"])
    if rotated != config["head_dim"] and config["model_type"] != "phi3":
        raise CheckpointError(
            f"{name} rotates {rotated} of {config['head_dim']} numbers of each head, which is not read for "
            f"{config['model_type']}; take another file."
        )
    if rotated != config["head_dim"]:
        scaling["partial_rotary_factor"] = rotated / config["head_dim"]
    if scaling["rope_type"] != "longrope" and stated.real("rope.scaling.attn_factor", 1.0) != 1.0:
        raise CheckpointError(
            f"{name} scales its scores by rope.scaling.attn_factor, which is not read; "
            "take its safetensors checkpoint."
        )
    if scaling["rope_type"] == "factors" and kind != "none" and factor != 1.0:
        raise CheckpointError(
            f"{name} scales its rotary embedding by rope_freqs and {one_line(kind)[:40]} at once, "
            "which is not read; take its safetensors checkpoint."
        )
    theta = 1_000_000.0 if config["model_type"] == "gemma3_text" else 10_000.0
    scaling["rope_theta"] = stated.real("rope.freq_base", stated.real("rope.global.freq_base", theta))
    own = {"original_max_position_embeddings": original} if config["model_type"] == "phi3" else {}
    return {"rope_parameters": scaling, **own}


def hf_name(gguf_name: str, architecture: Architecture) -> str | None:
    """Returns the name that a Hugging Face checkpoint gives a tensor, None if it has no such tensor."""
    layer = _LAYER.fullmatch(gguf_name)
    if layer is None or layer[2] not in architecture.roles:
        return _ENDS.get(gguf_name)
    fused_up = layer[2] == "ffn_up" and "ffn_gate" not in architecture.roles
    role = "mlp.gate_up_proj" if fused_up else architecture.names.get(layer[2]) or _ROLES[layer[2]]
    return f"model.layers.{layer[1]}.{role}.{layer[3]}"


def check_shapes(
    name: str, architecture: Architecture, config: Mapping[str, Any], tensors: Mapping[str, GgufTensor]
) -> None:
    """Refuses a file whose tensors are not those that its metadata implies.

    Raises:
        IncompleteCheckpoint: one is missing.
        CheckpointError: one has another shape, or is of an architecture that is not read.
    """
    if config["num_hidden_layers"] > len(tensors):
        raise IncompleteCheckpoint(
            f"{name} has {len(tensors):,} tensors, too few for {config['num_hidden_layers']:,} layers; "
            "fetch it again."
        )
    expected = dict(_shapes(architecture, config))
    for key, tensor in tensors.items():
        if key in ROPE_FACTORS:
            continue
        shape = expected.get(key)
        if shape is None and key.endswith(".bias") and f"{key[:-5]}.weight" in expected:
            shape = expected[f"{key[:-5]}.weight"][:1]
        if shape is None and key == "output.weight":
            shape = expected["token_embd.weight"]
        shown = one_line(key)[:80]
        if shape is None:
            raise CheckpointError(
                f"{name} has a tensor {shown}, which {config['model_type']} models with "
                f"{config['num_hidden_layers']} layers do not have; take its safetensors checkpoint."
            )
        if tensor.shape != shape:
            raise CheckpointError(
                f"{name} is damaged: {shown} has the shape {list(tensor.shape)}, and its metadata wants "
                f"{list(shape)}; fetch it again."
            )
    if missing := next((key for key in expected if key not in tensors), ""):
        raise IncompleteCheckpoint(f"{name} has no tensor {missing}; fetch it again.")


def _shapes(architecture: Architecture, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and shape of every tensor that cannot be missing."""
    hidden, wide, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    fused_up = "ffn_gate" not in architecture.roles
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (q, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_qkv": (q + 2 * kv, hidden),
        "attn_output": (hidden, q),
        "attn_q_norm": (dim,),
        "attn_k_norm": (dim,),
        "ffn_norm": (hidden,),
        "post_attention_norm": (hidden,),
        "post_ffw_norm": (hidden,),
        "ffn_gate": (wide, hidden),
        "ffn_up": (2 * wide if fused_up else wide, hidden),
        "ffn_down": (hidden, wide),
    }
    yield "token_embd.weight", (config["vocab_size"], hidden)
    yield "output_norm.weight", (hidden,)
    for layer in range(config["num_hidden_layers"]):
        for role in architecture.roles:
            yield f"blk.{layer}.{role}.weight", shapes[role]
        if architecture.model_type == "qwen2":
            yield from ((f"blk.{layer}.attn_{part}.bias", shapes[f"attn_{part}"][:1]) for part in "qkv")
