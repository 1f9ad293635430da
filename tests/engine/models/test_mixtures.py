"""Mixtures of experts: other layouts, steps in kernels, contradictory numbers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models import memory_estimate
from edge_tui.engine.models.architectures import families, flat_config, supports
from edge_tui.engine.models.feed_forward import FeedForward
from edge_tui.engine.models.loader import LoadError, available_precisions, load, tier_of
from edge_tui.engine.ops.row_counts import kernel_bytes
from edge_tui.engine.port import ModelSpec
from edge_tui.hub.precision_options import estimate_model
from tests.engine.models.architecture_table import measure
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import (
    FAMILIES,
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    random_ids,
    reference,
)
from tests.engine.random_checkpoints import TOKENS, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

MIXTURES = tuple(name for name, family in families().items() if family.mixture)


def rewrite_tensors(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "family",
    [name if name == "qwen2_moe" else pytest.param(name, marks=pytest.mark.proof) for name in MIXTURES],
)
def test_greedy_decoding_and_beams_write_what_generate_writes(family: str, tmp_path: Path) -> None:
    # generate() has GPT-OSS' numbers from its config, or with transformers 5.17 from its code.
    sizes = {key: value for key, value in FAMILIES[family].items() if not key.startswith("swiglu_")}
    path = make_tiny(tmp_path / "m", family, vocab_size=TOKENS, **sizes)
    save_tokenizer(path)
    row = measure(family, path)
    assert (row.tier, row.greedy, row.beams) == ("flat", "equal", "equal")


@pytest.mark.parametrize("family", MIXTURES)
def test_files_in_the_layout_that_transformers_computes_with(family: str, tmp_path: Path) -> None:
    """What `save_pretrained` writes that does not turn its own changes of names back: all experts in one."""
    path = checkpoint(tmp_path / "m", family)
    module, ids = reference(path), random_ids(1, 12)
    with torch.inference_mode():
        wanted = module(ids).logits
    tensors = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    assert any("experts.gate_up_proj" in name for name in tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    model = flat(path)
    assert deviation(model.forward(model.open(1, 16), ids).logits, wanted) < TOLERANCE


@pytest.mark.parametrize("family", ["qwen2_moe", "gpt_oss", "granitemoe"])
def test_kernels_take_the_place_of_plain_operations_in_a_step(family: str, tmp_path: Path) -> None:
    launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
    device = "cpu" if launch.INTERPRETED else "cuda"
    model = flat(checkpoint(tmp_path / "m", family), device=device)
    assert model.weights is not None
    layer = model.weights.layers[-1]
    x = torch.randn(2, model.config.hidden, generator=torch.Generator().manual_seed(1)).to(device)
    plain, kernels = (FeedForward(model.config.features, kernels=kernels) for kernels in (False, True))
    assert deviation(kernels(layer, x, few=True), plain(layer, x)) < 1e-5
    assert torch.equal(kernels(layer, x), plain(layer, x)), "a prompt's pieces are sorted by expert"


@pytest.mark.parametrize(
    ("family", "change", "reason"),
    [
        ("mixtral", {"num_experts_per_tok": 9}, "its router chooses 9 of 8 experts"),
        ("mixtral", {"num_experts_per_tok": 0}, "its router chooses 0 of 8 experts"),
        ("mixtral", {"num_local_experts": 2.5}, "its number 'experts' of a mixture of experts is 2.5"),
        ("mixtral", {"num_local_experts": True}, "is True"),
        ("mixtral", {"num_local_experts": -8}, "is -8"),
        ("mixtral", {"num_local_experts": None}, "null for num_local_experts"),
        (
            "mixtral",
            {"num_local_experts": 8, "num_experts": 16},
            "num_local_experts is 8, and its num_experts 16",
        ),
        ("mixtral", {"hidden_act": "gelu"}, "the activation of its experts is 'gelu'"),
        ("mixtral", {"n_shared_experts": 2}, "has n_shared_experts, which"),
        ("mixtral", {"norm_topk_prob": True}, "has norm_topk_prob, which"),
        ("mixtral", {"shared_expert_intermediate_size": 64}, "has shared_expert_intermediate_size, which"),
        ("qwen3_moe", {"moe_intermediate_size": 0}, "its experts have no width"),
        ("qwen3_moe", {"n_group": 8}, "has n_group, which Qwen3MoeForCausalLM does not know"),
        ("qwen3_moe", {"routed_scaling_factor": 2.5}, "has routed_scaling_factor, which"),
        ("qwen3_moe", {"decoder_sparse_step": 0}, "every layer of number 0"),
        ("qwen3_moe", {"decoder_sparse_step": -1}, "every layer of number -1"),
        ("qwen3_moe", {"norm_topk_prob": "x"}, "normalised 'x'"),
        ("gpt_oss", {"swiglu_limit": -7.0}, "number 'limit' of a mixture of experts is -7.0"),
        ("gpt_oss", {"swiglu_limit": "x"}, "number 'limit'"),
        ("gpt_oss", {"swiglu_limit": 0}, "number 'limit'"),
        ("qwen3_moe", {"layer_types": ["full_attention"] * 24}, "lists layer types"),
        ("qwen2_moe", {"num_local_experts": 60}, "has num_local_experts, which"),
        ("olmoe", {"clip_qkv": 8.0}, "its clip_qkv is 8.0"),
        ("gpt_oss", {"quantization_config": {"quant_method": "mxfp4"}}, "already quantised"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(
    family: str, change: dict[str, Any], reason: str
) -> None:
    config = {"architectures": [families()[family].architecture]}
    assert supports(config) is None
    assert reason in (supports(config | change) or "")


def test_layers_without_experts_are_those_that_the_config_names() -> None:
    def layers(**stated: Any) -> list[int]:
        config = {"architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 6, **stated}
        mixture = flat_config(config).features.mixture
        assert mixture is not None
        return [i for i, sparse in enumerate(mixture.layers) if sparse]

    assert layers() == [0, 1, 2, 3, 4, 5]
    assert layers(decoder_sparse_step=2) == [1, 3, 5]
    assert layers(decoder_sparse_step=2, mlp_only_layers=[3, 4]) == [1, 5]


def test_windows_of_qwens_mixtures_are_those_of_their_classes() -> None:
    own = {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 8}
    windows = {
        name: flat_config(
            {"architectures": [families()[name].architecture], "max_window_layers": 2, **own}
        ).windows
        for name in ("qwen2_moe", "qwen3_moe")
    }
    assert windows == {"qwen2_moe": (8, 0, 0, 0), "qwen3_moe": (8, 8, 8, 8)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: t.update({f"{MOE}.gate.weight": t[f"{MOE}.gate.weight"][:4]}),
            r"gate.weight has shape \[4, 32\]",
        ),
        (lambda t: t.pop(f"{MOE}.experts.4.w2.weight"), "no tensor .*experts.4.w2.weight"),
        (
            lambda t: t.update({f"{MOE}.experts.5.w1.weight": torch.ones(48, 32)}),
            "experts.5.w1.weight, which no MixtralForCausalLM of",
        ),
    ],
    ids=["router of other size", "expert missing", "expert too many"],
)
def test_a_file_with_other_experts_than_the_config_is_refused(
    change: Callable[[dict[str, Tensor]], None], reason: str, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "m", "mixtral")
    rewrite_tensors(path, change)
    with pytest.raises(WeightsError, match=reason):
        flat(path)


MOE = "model.layers.1.block_sparse_moe"


@pytest.mark.parametrize("kind", ["mixtral", "dots1", "granitemoeshared"])
@pytest.mark.parametrize("precision", ["int8", "4bit"])
def test_a_mixture_is_not_quantised(precision: Any, kind: str, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m", kind, vocab_size=TOKENS)
    save_tokenizer(path)
    with pytest.raises(LoadError, match=r"is a mixture of experts, .*: choose bfloat16\.$"):
        load(ModelSpec(str(path), precision, "cpu"))
    mixture = open_checkpoint(str(path))
    assert "mixture of experts" in (available_precisions("cpu", mixture)[precision] or "")
    assert precision not in estimate_model(mixture, "cpu", 64).estimates
    assert available_precisions("cpu", mixture)["bfloat16"] is None


def test_codes_of_a_mixture_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", "mixtral")
    save_tokenizer(path)
    stored: Any = open_checkpoint(str(path))
    coded = replace(stored, codes=type("Codes", (), {"form": type("Form", (), {"label": "AWQ"})})())
    with pytest.raises(CheckpointError, match="AWQ: it is a mixture of experts; take its 16-bit checkpoint"):
        tier_of(coded)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_reading_a_prompt_with_experts_takes_what_is_estimated(precision: Any, tmp_path: Path) -> None:
    own = {"hidden_size": 256, "moe_intermediate_size": 192, "num_experts": 4, "num_experts_per_tok": 4}
    path = make_tiny(tmp_path / "m", "qwen3_moe", vocab_size=TOKENS, max_position_embeddings=1024, **own)
    save_tokenizer(path)
    model = load(ModelSpec(str(path), precision, "cpu", 1024)).model
    room = model.open(1, 1536)
    ids = torch.randint(0, TOKENS, (1, 1000))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model.prefill(room, ids)
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    expected = memory_estimate.MemoryNeed(open_checkpoint(str(path)), precision, 1, 0, "cpu").reading(1000)
    assert peak == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("family", "turned"), [("granitemoe", False), ("gpt_oss", True)])
def test_experts_that_are_stored_the_other_way_round_exist_twice(
    family: str, turned: bool, tmp_path: Path
) -> None:
    sizes = {"num_local_experts": 8, "intermediate_size": 512, "num_attention_heads": 2}
    save_tokenizer(make_tiny(tmp_path / "m", family, **sizes))
    needed = memory_estimate.estimate(open_checkpoint(str(tmp_path / "m")), "float32", 8, 1, "cpu")
    larger = 8 * (2 * 512) * 32 * 4
    assert (needed.total - needed.weights >= larger) == turned


def test_kernels_of_16_bits_are_counted_once_for_each_number_of_rows(tmp_path: Path) -> None:
    save_tokenizer(make_tiny(tmp_path / "m", "qwen3_moe", vocab_size=TOKENS))
    described = open_checkpoint(str(tmp_path / "m"))
    short, long = (
        memory_estimate.estimate(described, "bfloat16", context, 1, "cpu").overhead for context in (8, 2048)
    )
    assert kernel_bytes(8) <= short < kernel_bytes(16)
    assert kernel_bytes(512) <= long


def test_config_of_the_published_shape() -> None:
    c = flat_config(
        {
            "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 24, "num_local_experts": 32,
            "experts_per_token": 4, "num_experts_per_tok": 4, "initial_context_length": 4096,
            "rope_scaling": {
                "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": False,
            },
            "rope_theta": 150000, "swiglu_limit": 7.0,
        }
    )  # fmt: skip
    assert c.windows == (128, 0) * 12
    assert (c.rope.kind, c.rope.theta, c.rope.original) == ("yarn", 150000.0, 4096)
    assert c.features.mixture is not None
    assert (c.features.mixture.experts, c.features.mixture.active, c.features.mixture.limit) == (32, 4, 7.0)
