"""Refuses numbers in config.json that no model has, by their names, before anything divides by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, product
from math import isfinite
from typing import Any

from edge_tui.engine.checkpoints.weight_files import CheckpointError

Config = Mapping[str, Any]

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_SIZES = (
    *("hidden_size", "n_embd", "d_model", "head_dim", "vocab_size"),
    *("num_attention_heads", "n_head", "num_key_value_heads"),
)
_COUNTS = (
    *("intermediate_size", "ffn_dim", "n_inner", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("num_experts", "num_local_experts", "num_experts_per_tok"),
)
_MOST = dict.fromkeys(_LAYERS, 10_000) | dict.fromkeys((*_SIZES, *_COUNTS), 100_000_000)
_ROTARY = ("factor", "rope_theta", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor")
"""Numbers of a rotary embedding that frequencies are divided by or made of."""


def check_numbers(name: str, config: Config) -> None:
    """Checks the numbers that are the same in all architectures, where config.json states them.

    A key that is absent, null or a list says nothing here: its architecture decides.

    Raises:
        CheckpointError: a number is impossible; it names the key.
    """
    nested = config.get("text_config")
    for each in (config, nested if isinstance(nested, dict) else {}):
        for key, most in _MOST.items():
            least = 0 if key in _COUNTS else 1
            if not _is_count(each.get(key), least, most):
                raise _refusal(name, key, each[key], f"a whole number from {least} to {most:,}")
        chosen, experts = each.get("num_experts_per_tok"), _experts(each)
        if experts and chosen is not None and not _is_count(chosen, 1, experts):
            wanted = f"from 1 to its {experts} experts"
            raise _refusal(name, "num_experts_per_tok", chosen, wanted)
        for key, value in each.items():
            if key.endswith(("_eps", "_epsilon")) and not _is_number(value, 0.0):
                raise _refusal(name, key, value, "a number from 0 on")
        for key, value in _rotary(each):
            values = value if isinstance(value, list) else [value]
            if not all(_is_number(one, 0.0) and one != 0 for one in values):
                raise _refusal(name, key, value, "above 0")


def check_ids(name: str, vocab: int, config: Config, generation_config: Config) -> None:
    """Checks the ids that begin and end a text against the rows of the embedding.

    A negative one says that there is none. The padding's, which nothing reads, is one past the vocabulary in
    published checkpoints.

    Args:
        name: As the user named the checkpoint.
        vocab: Rows of the embedding, 0 if unknown.
        config: config.json.
        generation_config: generation_config.json.

    Raises:
        CheckpointError: an id lies beyond; it names the key.
    """
    nested = config.get("text_config")
    files = [("config.json", config), ("generation_config.json", generation_config)]
    files += [("config.json", nested)] if isinstance(nested, dict) else []
    for (file, stated), key in product(files, ("bos_token_id", "eos_token_id")):
        value = stated.get(key)
        for one in value if isinstance(value, list) else [value]:
            if vocab and isinstance(one, int) and one >= vocab:
                raise _refusal(name, key, value, f"below its vocab_size {vocab:,}", file)


def _experts(config: Config) -> int:
    """Returns the number of experts of a mixture; 0 for a model without."""
    stated = (config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    return next((each for each in stated if isinstance(each, int) and each), 0)


def _rotary(config: Config) -> Iterator[tuple[str, Any]]:
    """Lists the numbers of the rotary embeddings, those of kinds of layers too."""
    tables = [config.get(key) for key in ("rope_scaling", "rope_parameters")]
    plain = [table for table in tables if isinstance(table, dict)]
    nested = [each for table in plain for each in table.values() if isinstance(each, dict)]
    yield from (("rope_theta", config[key]) for key in ("rope_theta",) if key in config)
    for table in chain(plain, nested):
        yield from ((key, table[key]) for key in _ROTARY if key in table)


def _is_count(value: object, least: int, most: int) -> bool:
    if value is None or isinstance(value, list):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object, least: float) -> bool:
    if value is None or isinstance(value, list):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) and value >= least


def _refusal(name: str, key: str, value: object, wanted: str, file: str = "config.json") -> CheckpointError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]} …"
    return CheckpointError(
        f"The {file} of {name} has {key} {shown}; it must be {wanted}: fetch the checkpoint again."
    )
