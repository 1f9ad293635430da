"""AWQ, GPTQ and AutoRound: weights against a loop over single elements, whole models against their twins."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models.loader import LoadError, load
from edge_tui.engine.models.memory_estimate import estimate
from edge_tui.engine.port import ModelSpec
from edge_tui.hub.listing import describe_local
from tests.engine.checkpoints.coded import CODINGS, Coding, declare, draw, make_coded
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint, save_tensors, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

DOWN = "model.layers.0.mlp.down_proj"
SHAPE = {"layers": 1, "hidden": 64, "intermediate": 128}


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replaces tensors of the first layer's last matrix; None removes one."""
    stored = load_file(folder / "model.safetensors")
    stored |= {f"{DOWN}.{part}": tensor for part, tensor in tensors.items() if tensor is not None}
    gone = {f"{DOWN}.{part}" for part, tensor in tensors.items() if tensor is None}
    save_tensors(folder, {name: tensor for name, tensor in stored.items() if name not in gone})


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(folder))
    return sentence(caught.value)


def sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert text.count(";") == 1
    assert text.endswith(".")
    return text


def logits(folder: Path) -> torch.Tensor:
    model = load(ModelSpec(str(folder), precision="float32", device="cpu", context=64)).model
    with torch.inference_mode():
        return model.forward(model.open(1, 64), torch.arange(5, 45)[None]).logits


@pytest.mark.parametrize("case", CODINGS)
def test_every_weight_is_what_its_definition_says(case: str, tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS[case], **SHAPE)
    wanted = load_file(twin / "model.safetensors")
    with closing(open_checkpoint(str(stored)).open_tensors()) as reader:
        assert set(reader.names()) == set(wanted)
        for name, tensor in wanted.items():
            assert name in reader
            assert torch.equal(reader.read(name).float(), tensor), name


@pytest.mark.parametrize("case", CODINGS)
def test_codes_stand_for_the_same_weights(case: str, tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS[case], **SHAPE)
    checkpoint = open_checkpoint(str(stored))
    kept = 0
    with closing(checkpoint.open_tensors()) as reader:
        for name in reader.names():
            codes = reader.read_codes(name, "cpu")
            assert (codes.form if codes else None) == checkpoint.form_of(name)
            if codes is not None:
                kept += 1
                assert torch.equal(codes.dequantise(), reader.read(name)), name
    # The last group of 128 inputs is not whole where there are 64.
    assert kept == (0 if CODINGS[case].act_order else 1 if CODINGS[case].group == 128 else 7)


def test_groups_out_of_order_and_wide_scales_are_no_codes_to_keep(tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["gptq"], **SHAPE)
    groups = load_file(stored / "model.safetensors")[f"{DOWN}.g_idx"]
    change(stored, g_idx=groups.flip(0))
    with closing(open_checkpoint(str(stored)).open_tensors()) as reader:
        assert reader.read_codes(f"{DOWN}.weight", "cpu") is None
    scales = load_file(stored / "model.safetensors")[f"{DOWN}.scales"]
    change(stored, g_idx=groups, scales=scales.bfloat16())
    checkpoint = open_checkpoint(str(stored))
    assert checkpoint.form_of(f"{DOWN}.weight") is None
    with closing(checkpoint.open_tensors()) as reader:
        assert reader.read_codes(f"{DOWN}.weight", "cpu") is None


@pytest.mark.parametrize("case", ["awq", "gptq act-order", "gptq v2 8 bit act-order"])
def test_logits_are_those_of_the_dequantised_twin(case: str, tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS[case])
    assert torch.equal(logits(stored), logits(twin))


@pytest.mark.parametrize("arch", ["llama", "qwen3", "phi3"])
def test_families_load(arch: str, tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["awq"], arch, layers=1)
    assert torch.equal(logits(stored), logits(twin))


def test_a_matrix_of_several_pieces(tmp_path: Path) -> None:
    for name in ("awq", "gptq act-order"):
        stored, _ = make_coded(tmp_path / name, CODINGS[name], layers=1)
        parts, wanted = draw(CODINGS[name], 4136, 32, seed=1)
        change(stored, **parts)
        with closing(open_checkpoint(str(stored)).open_tensors()) as reader:
            assert torch.equal(reader.read(f"{DOWN}.weight"), wanted)


def test_biases_of_zeros_that_the_architecture_lacks_count_as_none(tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["gptq"], "llama", layers=1, zero_biases=True)
    assert torch.equal(logits(stored), logits(twin))
    change(stored, bias=torch.ones(64, dtype=torch.float16))
    with pytest.raises(LoadError, match=rf"tensor {DOWN}.bias, which no LlamaForCausalLM of"):
        logits(stored)


def test_a_head_of_codes(tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["gptq"], layers=1)
    parts, weights = draw(CODINGS["gptq"], 320, 64, seed=99)
    tensors = load_file(stored / "model.safetensors")
    del tensors["lm_head.weight"]
    save_tensors(stored, tensors | {f"lm_head.{part}": value for part, value in parts.items()})
    save_tensors(twin, load_file(twin / "model.safetensors") | {"lm_head.weight": weights})
    assert torch.equal(logits(stored), logits(twin))


@pytest.mark.parametrize(
    ("packing", "coding"), [("auto_round:auto_gptq", Coding("gptq")), ("auto_round:auto_awq", Coding())]
)
def test_auto_round_stores_as_gptq_or_awq_do(packing: str, coding: Coding, tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, coding, layers=1)
    config = {"quant_method": "auto-round", "packing_format": packing, "bits": 4, "group_size": 32}
    declare(stored, config | {"data_type": "int", "extra_config": {"lm_head": {"bits": 16}}})
    assert open_checkpoint(str(stored)).format == "AutoRound 4 bit g32"
    assert torch.equal(logits(stored), logits(twin))


def test_layers_that_are_left_in_full(tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["awq"], layers=1)
    tensors, plain = load_file(stored / "model.safetensors"), load_file(twin / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(DOWN)}
    save_tensors(stored, tensors | {f"{DOWN}.weight": plain[f"{DOWN}.weight"]})
    declare(stored, CODINGS["awq"].config | {"modules_to_not_convert": ["down_proj"]})
    assert torch.equal(logits(stored), logits(twin))


def test_the_listing_names_format_and_sizes(tmp_path: Path) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["awq"])
    listing, plain = describe_local(str(stored), "folder"), describe_local(str(twin), "folder")
    assert (listing.dtype, listing.tier, listing.refusal) == ("AWQ 4 bit g32", "flat", "")
    assert listing.parameters == plain.parameters
    tensors = load_file(stored / "model.safetensors").values()
    assert listing.bytes == sum(tensor.nbytes for tensor in tensors)
    assert open_checkpoint(str(stored)).dtype == "float16"
    whole, _ = make_coded(tmp_path / "whole", CODINGS["gptq whole"], layers=1)
    assert open_checkpoint(str(whole)).format == "GPTQ 4 bit"


@pytest.mark.parametrize(("precision", "peaks"), [("float32", False), ("bfloat16", True), ("int8", False)])
def test_memory_is_that_of_the_twin_and_of_a_matrix_being_read(
    precision: Any, peaks: bool, tmp_path: Path
) -> None:
    stored, twin = make_coded(tmp_path, CODINGS["awq"], layers=1, intermediate=512)
    forecast, plain = (estimate(open_checkpoint(str(m)), precision, 1, 1, "cpu") for m in (stored, twin))
    info = load(ModelSpec(str(stored), precision=precision, device="cpu")).model.info
    assert forecast.weights == plain.weights == info.weight_bytes
    assert (forecast.total > plain.total) == peaks  # elsewhere a prompt takes more than the load
    checkpoint = open_checkpoint(str(stored))
    most = max(4 * rows * (columns + 2 * columns // 32) for rows, columns in ((64, 512), (512, 64)))
    assert checkpoint.read_copy(ends=False) == most
    assert checkpoint.read_copy(ends=True) == 0


@pytest.mark.parametrize(
    ("base", "values", "words"),
    [
        ("gptq", {"bits": 3}, "GPTQ 3 bit,"),
        ("gptq", {"bits": 2}, "GPTQ 2 bit,"),
        ("gptq", {"bits": "4"}, "GPTQ 4 bit,"),
        ("awq", {"bits": 8}, "AWQ 8 bit,"),
        ("awq", {"group_size": 0}, "AWQ with groups of 0,"),
        ("awq", {"version": "gemv"}, "AWQ (gemv),"),
        ("awq", {"version": "marlin"}, "AWQ (marlin),"),
        ("awq", {"zero_point": False}, "AWQ (without zero points),"),
        ("gptq", {"checkpoint_format": "marlin"}, "GPTQ (marlin),"),
        ("gptq", {"is_marlin_format": True}, "GPTQ (marlin),"),
        ("gptq", {"checkpoint_format": "bitblas"}, "GPTQ (bitblas),"),
        ("gptq", {"dynamic": {"+:.*down.*": {"bits": 8}}}, "GPTQ with other bits or groups in some layers,"),
        (
            "gptq",
            {"dynamic": {".*up.*": {"group_size": 64}}},
            "GPTQ with other bits or groups in some layers,",
        ),
        ("gptq", {"dynamic": ["x"]}, "GPTQ with other bits or groups in some layers,"),
        ("gptq", {"quant_method": "auto-round"}, "AutoRound (no packing_format),"),
        (
            "gptq",
            {"quant_method": "auto-round", "packing_format": "auto_round:exllamav2"},
            "AutoRound (auto_round:exllamav2),",
        ),
        (
            "gptq",
            {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "data_type": "mx_fp"},
            "AutoRound (mx_fp),",
        ),
        (
            "gptq",
            {
                "quant_method": "auto-round",
                "packing_format": "auto_round:auto_gptq",
                "extra_config": {"model.layers.0.mlp.down_proj": {"bits": 8}},
            },
            "AutoRound with other bits or groups in some layers,",
        ),
    ],
)
def test_variants_are_refused_by_name(base: str, values: dict[str, Any], words: str, tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS[base], layers=1)
    declare(stored, CODINGS[base].config | values)
    text = refusal(stored)
    assert f"{stored} is quantised as {words}" in text
    assert "which is not supported" in text


def test_layers_that_config_leaves_out_do_not_count_as_others(tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["gptq"], layers=1)
    declare(stored, CODINGS["gptq"].config | {"dynamic": {"-:lm_head": {}}})
    assert open_checkpoint(str(stored)).format == "GPTQ 4 bit g32"


@pytest.mark.parametrize(
    ("case", "tensors", "words"),
    [
        (
            "awq",
            {"scales": torch.ones(2, 64).half()},
            "scales of {} is F16 [2, 64], but AWQ 4 bit g32 wants F16",
        ),
        ("awq", {"scales": torch.ones(3, 64).int()}, "scales of {} is I32 [3, 64], but"),
        ("awq", {"qzeros": torch.ones(3, 64).int()}, "qzeros of {} is I32 [3, 64], but"),
        ("gptq", {"qweight": torch.ones(24, 64).int()}, "scales of {} is F16 [3, 64], but"),
        ("gptq", {"qweight": torch.ones(12, 64)}, "qweight of {} is F32 [12, 64], but"),
        ("gptq", {"qweight": torch.ones(64).int()}, "qweight of {} has shape [64], which is no matrix"),
        ("gptq", {"g_idx": torch.zeros(95).int()}, "g_idx of {} is I32 [95], but"),
        ("gptq act-order", {"g_idx": None}, "has no tensor g_idx"),
        ("gptq", {"qzeros": None}, "has no tensor qzeros"),
        ("gptq", {"scales": None}, "has no tensor scales"),
        ("gptq", {"weight": torch.ones(64, 96)}, "both as GPTQ and in full"),
    ],
)
def test_tensors_that_contradict_the_format(
    case: str, tensors: dict[str, torch.Tensor | None], words: str, tmp_path: Path
) -> None:
    stored, _ = make_coded(tmp_path, CODINGS[case], layers=1)
    change(stored, **tensors)
    text = refusal(stored)
    assert DOWN in text
    assert words.format(stored) in text
    assert describe_local(str(stored), "folder").refusal == text


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_config_that_declares_what_no_tensor_has(method: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", layers=1)
    declare(folder, {"quant_method": method, "bits": 4})
    assert f"is quantised as {method.upper()} by its config.json, but has no tensor qweight" in refusal(
        folder
    )


@pytest.mark.parametrize("group", [-1, 3])
def test_a_group_that_is_not_there_is_refused_before_a_weight_is_read(group: int, tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["gptq"], layers=1)
    change(stored, g_idx=torch.full((96,), group, dtype=torch.int32))
    with pytest.raises(WeightsError, match="but there are 3") as caught:
        open_checkpoint(str(stored)).open_tensors()
    assert f"{DOWN}.g_idx names groups from {group} to {group}" in sentence(caught.value)
    done: list[int] = []
    with pytest.raises(LoadError, match="g_idx names groups"):
        load(ModelSpec(str(stored), device="cpu"), progress=lambda read, _all: done.append(read))
    assert not done


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["awq"], layers=1)
    file = stored / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is truncated" in refusal(stored)


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["awq"], "llama", layers=1)
    seen: list[tuple[int, int]] = []
    load(ModelSpec(str(stored), device="cpu"), progress=lambda read, of: seen.append((read, of)))
    assert seen[-1][0] == seen[-1][1]


def test_an_architecture_of_the_other_tier_is_refused(tmp_path: Path) -> None:
    stored, _ = make_coded(tmp_path, CODINGS["awq"], layers=1)
    config = stored / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"mish"'))
    text = describe_local(str(stored), "folder").refusal
    assert f"{stored} cannot be run from AWQ 4 bit g32: its activation 'mish' is unknown" in text
    with pytest.raises(CheckpointError, match="take its 16-bit checkpoint"):
        load(ModelSpec(str(stored), device="cpu"))


def test_a_family_whose_matrices_lie_the_other_way_round_is_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "gpt2", vocab_size=320, n_embd=64, n_inner=128)
    save_tokenizer(folder)
    tensors = load_file(folder / "model.safetensors")
    base = next(name for name in tensors if name.endswith("0.attn.c_proj.weight")).removesuffix(".weight")
    parts, _ = draw(CODINGS["gptq"], 64, 64, seed=1)  # square, so that no shape tells
    del tensors[f"{base}.weight"]
    save_tensors(folder, tensors | {f"{base}.{part}": value for part, value in parts.items()})
    declare(folder, CODINGS["gptq"].config)
    text = describe_local(str(folder), "folder").refusal
    assert "GPT2LMHeadModel stores its matrices the other way round; take its 16-bit checkpoint." in text
