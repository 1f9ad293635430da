"""Reads the descriptions of the families that the flat decoder runs, one TOML each in `families/`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from edge_tui.engine.models.rope_config import KINDS
from edge_tui.engine.models.tensor_layout import ExpertLayout, TensorLayout

OWN_THETA = 10000.0


class UnsupportedError(ValueError):
    """Says why the flat decoder does not cover a config, as one clause."""


@dataclass(frozen=True, slots=True)
class Family:
    """Describes a family of decoders that differ in config.json alone.

    A value of `features` or `mixture` is what it says, or a table that takes it from config.json: `key`, and
    `power` to raise it to, or `yes` to stand for a true one. A null, or a false one with `yes`, means the
    default.

    Attributes:
        architecture: The class, as config.json names it.
        defaults: Those of transformers' config class for keys that config.json lacks; a test compares them.
        nullable: Keys whose null means something, and is the default if `defaults` has none.
        whole: Classes of models that read more than text, whose `text_config` is of this family.
        keys: The family's own names of keys, by Llama's.
        aliases: Other names of keys that config.json may have, by the name that counts here.
        fixed: Values of Llama's keys that the family's config.json does not have.
        only: Keys with the one value that is covered, or a list of those.
        same: Keys that must be null or have another key's value.
        features: Values of `Features` and, of `FlatConfig`, the biases and `qk_norm`.
        mixture: Values of `Mixture`, and its layers: those whose number, counted from 1, is a multiple of
            `step`, but none that `dense` lists, counted from 0.
        layout: Values of `TensorLayout`.
        experts: Values of `ExpertLayout`.
        shapes: Keys that say what differs between layers, by what they say: `head_dim` and `kv_heads` of
            full layers, `by_layer` for a table of single ones, `shared` for how many of the last ones have no
            keys of their own, `double` if those have a feed-forward layer twice as wide, `keys_are_values` of
            full ones.
        rope: Rotary settings, where config.json has none.
        full_head_dim: Width of a head of full layers, where config.json has none; 0 means as others.
        theta: Base of the rotary frequencies, where config.json has none.
        local_theta: The same of windowed layers, where they have their own.
        partial_rotary: True if less than a whole head may be rotated.
        rotary_share: Share of a head that is rotated, where config.json has none.
        rotary_layers: Layers that are rotated: "all", "none", "windowed", "listed" (by `no_rope_layers`), or
            "local" for all, the windowed ones by a rotary embedding of their own.
        window_pattern: Every layer of which number, counted from 1, has no window; 0 without such a rule.
        last_full: True if the last layer has no window, whatever else is said.
        ropes: Kind of rotary scaling by its name in config.json.
        activations: Activations by their names in config.json, where they mean others than usual.
        variants: Changes for checkpoints of the class that differ by more than one value. Each has `when`,
            values of config.json's keys for which it holds, and values of the other attributes: those of
            tables are added to them. Of several that hold the later one counts.
    """

    architecture: str
    defaults: Mapping[str, Any]
    nullable: tuple[str, ...]
    whole: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    mixture: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    experts: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, str] = field(default_factory=dict)
    rope: Mapping[str, Any] = field(default_factory=dict)
    full_head_dim: int = 0
    theta: float = OWN_THETA
    local_theta: float = OWN_THETA
    partial_rotary: bool = False
    rotary_share: float = 1.0
    rotary_layers: str = "all"
    window_pattern: int = 0
    last_full: bool = False
    ropes: Mapping[str, str] = field(default_factory=lambda: {kind: kind for kind in KINDS})
    activations: Mapping[str, str] = field(default_factory=dict)
    variants: Sequence[Mapping[str, Any]] = ()

    def variant(self, config: Mapping[str, Any]) -> Family:
        """Returns the family with the changes of its variants that hold for a config.json."""
        family, stated = self, {**self.defaults, **config}
        for changes in self.variants:
            if all(stated.get(key) == value for key, value in changes["when"].items()):
                family = family._changed(changes)
        return family

    def _changed(self, changes: Mapping[str, Any]) -> Family:
        """Adds a variant's values to those of tables, and replaces others by them."""
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name != "when":
                values[name] = {**getattr(self, name), **value} if isinstance(value, Mapping) else value
        return replace(self, **values)

    def feature(self, name: str, config: Mapping[str, Any], default: Any) -> Any:
        """Returns the value of a feature for a config.json, or the default where it has none."""
        return self.value(self.features.get(name), config, default)

    def value(self, spec: Any, config: Mapping[str, Any], default: Any) -> Any:
        """Returns what an entry of `features` or `mixture` says about a config.json."""
        if spec is None:
            return default
        if not isinstance(spec, Mapping):
            return spec
        value = config.get(spec["key"])
        if "yes" in spec:
            return spec["yes"] if value else default
        if value is None:
            return default
        return float(value) ** spec["power"] if "power" in spec else value

    def tensor_layout(self) -> TensorLayout:
        """Returns the names of the family's tensors."""
        experts = ExpertLayout(**_tuples(self.experts))
        return TensorLayout(experts=experts, **_tuples(self.layout))

    @property
    def known(self) -> set[str]:
        """Keys of config.json that mean something to the family, by its own names."""
        tables = self.defaults, self.nullable, self.keys.values(), self.aliases.values(), self.only, self.same
        chosen = {key for changes in self.variants for key in changes["when"]}
        return {key for table in tables for key in table} | self.stated | chosen

    @property
    def stated(self) -> set[str]:
        """Keys of config.json that features and mixture are taken from."""
        specs = (*self.features.values(), *self.mixture.values())
        return {spec["key"] for spec in specs if isinstance(spec, Mapping)} | set(self.shapes.values())


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """Makes tuples of a table's lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}


@cache
def families() -> dict[str, Family]:
    """Reads the families of the flat tier, by `model_type`."""
    files = sorted((Path(__file__).parent / "families").glob("*.toml"))
    return {file.stem: Family(**tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


@cache
def feature_keys() -> frozenset[str]:
    """Returns the keys of config.json by which some family has a feature that others lack."""
    known = families().values()
    keys = {key for family in known for key in (*family.stated, *family.only, *family.aliases.values())}
    chosen = {key for family in known for each in family.variants for key in each["when"]}
    return frozenset((keys | chosen | set(_ELSEWHERE)) - families()["llama"].known)


_ELSEWHERE = (
    "first_k_dense_replace", "kv_lora_rank", "n_routed_experts", "n_shared_experts", "num_shared_experts",
    "n_group", "routed_scaling_factor", "q_lora_rank", "attention_sinks",
    "mamba_d_state", "linear_num_key_heads", "attention_chunk_size",
)  # fmt: skip
"""Keys of features that no family here has."""
