"""Numbers in config.json that no model has are refused by their names, before anything is computed."""

from __future__ import annotations

import json
import re
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.torch import load_file, save_file

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.config_numbers import check_ids, check_numbers
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.architectures import supports
from edge_tui.engine.port import Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHOLE = "a whole number from"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 0}, f"num_hidden_layers 0; it must be {WHOLE} 1 to 10,000"),
        ({"num_hidden_layers": -1}, WHOLE),
        ({"num_hidden_layers": 10**9}, WHOLE),
        ({"num_hidden_layers": "2"}, "num_hidden_layers '2'"),
        ({"num_hidden_layers": 2.5}, WHOLE),
        ({"n_layer": True}, "n_layer True"),
        ({"num_attention_heads": 0}, WHOLE),
        ({"num_attention_heads": -4}, "num_attention_heads -4"),
        ({"num_key_value_heads": 0}, WHOLE),
        ({"head_dim": -16}, WHOLE),
        ({"hidden_size": inf}, "hidden_size inf"),
        ({"vocab_size": -1}, WHOLE),
        ({"intermediate_size": -96}, f"{WHOLE} 0"),
        ({"moe_intermediate_size": -1}, WHOLE),
        ({"num_experts": -1}, WHOLE),
        ({"num_local_experts": 2.5}, WHOLE),
        (
            {"num_experts": 4, "num_experts_per_tok": 5},
            "num_experts_per_tok 5; it must be from 1 to its 4 experts",
        ),
        ({"num_local_experts": 4, "num_experts_per_tok": 0}, "from 1 to its 4 experts"),
        ({"rms_norm_eps": nan}, "a number from 0 on"),
        ({"layer_norm_epsilon": -1e-5}, "a number from 0 on"),
        ({"rope_theta": 0}, "above 0"),
        ({"rope_theta": "x"}, "above 0"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor 0; it must be above 0"),
        ({"rope_scaling": {"type": "yarn", "factor": -4.0}}, "above 0"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "above 0"),
        ({"rope_parameters": {"full_attention": {"rope_theta": -1.0}}}, "above 0"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0, 0]}}, "short_factor [1.0, 0]"),
        ({"text_config": {"num_hidden_layers": 0}}, WHOLE),
    ],
)
def test_a_number_that_cannot_be_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_numbers("m", change)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.startswith("The config.json of m has ")
    assert sentence.endswith(": fetch the checkpoint again.")


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": None, "num_attention_heads": [4, 8], "head_dim": None},
        {"num_local_experts": 0, "num_experts_per_tok": 8, "intermediate_size": 0},
        {"num_experts": 4, "num_experts_per_tok": 4},
        {"max_position_embeddings": -1, "layer_norm_eps": 0, "rope_theta": 10_000},
        {"rope_scaling": None, "rope_parameters": {"rope_type": "yarn", "factor": None}},
    ],
)
def test_what_architectures_say_in_their_own_way_stays(config: dict[str, Any]) -> None:
    check_numbers("m", config)


def test_a_checkpoint_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | {"num_attention_heads": -4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="num_attention_heads -4"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("head_dim", [15, 1])
def test_a_head_that_cannot_be_turned_in_pairs_is_not_of_the_flat_tier(head_dim: int, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", head_dim=head_dim)
    reason = supports(json.loads((folder / "config.json").read_text()))
    assert reason == f"its rotary embedding would turn {head_dim} numbers of a head of {head_dim}"


def test_a_prompt_beyond_the_embedding_is_refused(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    """The tokenizer may know more tokens than the model has rows, as long as none of them is read."""
    folder = make_checkpoint(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:100].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(config))
    engine = open_engine(model=folder)
    failed = watch(engine, Request("the quick brown fox", "greedy", max_length=4)).failed
    assert "The prompt has the token " in failed.message
    assert "has 100 tokens: leave it out, or take the model's own tokenizer." in failed.message
    assert len(watch(engine, Request("", "greedy", ids=range(60, 70), max_length=4)).ids) == 4


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"eos_token_id": 320}, "config.json of m has eos_token_id 320; it must be below"),
        ("config.json", {"bos_token_id": 999}, "bos_token_id 999"),
        ("config.json", {"text_config": {"eos_token_id": 320}}, "eos_token_id 320"),
        ("generation_config.json", {"eos_token_id": [2, 2**40]}, "its vocab_size 320"),
        ("generation_config.json", {"bos_token_id": 320}, "generation_config.json of m has bos_token_id 320"),
    ],
)
def test_an_id_beyond_the_vocabulary_is_named(file: str, change: dict[str, Any], words: str) -> None:
    files = {"config.json": {}, "generation_config.json": {}, file: change}
    with pytest.raises(CheckpointError, match=re.escape(words)):
        check_ids("m", 320, *files.values())


def test_a_checkpoint_whose_end_lies_beyond_its_vocabulary_is_refused(tmp_path: Path) -> None:
    past = {"eos_token_id": [319, -1], "bos_token_id": None, "pad_token_id": 320}
    folder = make_checkpoint(tmp_path / "m", generation=past)
    assert 319 in open_checkpoint(str(folder)).eos_ids, "an end of the padded embedding, and no padding"
    make_checkpoint(folder, generation={"eos_token_id": [319, 320]})
    with pytest.raises(CheckpointError, match=r"has eos_token_id \[319, 320\]"):
        open_checkpoint(str(folder))
