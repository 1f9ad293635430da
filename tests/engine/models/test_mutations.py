"""The golden comparison must see: each classic mistake, made on purpose, has to move the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.models import expert_reader, feed_forward, loading
from edge_tui.engine.models import flat as flat_module
from edge_tui.engine.models import rope as rope_module
from edge_tui.engine.models.architectures import flat_config
from edge_tui.engine.models.layers import Norm
from edge_tui.engine.models.per_layer import PerLayer
from tests.engine.models.references import (
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Mutate = Callable[[pytest.MonkeyPatch], None]

VISIBLE = 10 * TOLERANCE
PROMPT, T = 30, 40


def changed_config(**changes: Any) -> Mutate:
    """Decodes as if config.json had said something else."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        right = flat_config
        patch.setattr(loading, "flat_config", lambda config: replace(right(config), **changes))

    return mutate


def changed_sources(patch: pytest.MonkeyPatch) -> None:
    """Shares the first layer of a kind, not the last that has keys of its own."""
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        first = [next(j for j, w in enumerate(c.windows) if w == window) for window in c.windows]
        shapes = tuple(
            shape if shape.source == i else replace(shape, source=first[i])
            for i, shape in enumerate(c.shapes)
        )
        return replace(c, features=replace(c.features, shapes=shapes))

    patch.setattr(loading, "flat_config", wrong)


def values_not_normed(patch: pytest.MonkeyPatch) -> None:
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        return replace(c, features=replace(c.features, value_norm=False))

    patch.setattr(loading, "flat_config", wrong)


def all_frequencies_turn(patch: pytest.MonkeyPatch) -> None:
    """Rotates whole heads of full layers, as the usual rotary embedding does."""
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        return replace(c, rope=replace(c.rope, kind="default"))

    patch.setattr(loading, "flat_config", wrong)


def streams_not_scaled(patch: pytest.MonkeyPatch) -> None:
    right = loading.Layer
    patch.setattr(loading, "Layer", lambda *parts: replace(right(*parts), scale=None))


def inputs_of_the_first(patch: pytest.MonkeyPatch) -> None:
    right = PerLayer.inputs

    def wrong(*given: Any) -> torch.Tensor:
        inputs = right(*given)
        return inputs[:, :1].expand_as(inputs)

    patch.setattr(PerLayer, "inputs", wrong)


def changed_rope(**changes: Any) -> Mutate:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        right = flat_config

        def wrong(config: Any) -> Any:
            c = right(config)
            return replace(c, rope=replace(c.rope, **changes))

        patch.setattr(loading, "flat_config", wrong)

    return mutate


def changed_features(**changes: Any) -> Mutate:
    """Decodes as if the family had other features; its tensors are read as they are."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        right = loading.FlatModel

        def wrong(c: Any, *rest: Any) -> Any:
            return right(replace(c, features=replace(c.features, **changes)), *rest)

        patch.setattr(loading, "FlatModel", wrong)

    return mutate


def changed_reading(**changes: Any) -> Mutate:
    """Reads tensors as if the family stored them otherwise."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        right = flat_config

        def wrong(config: Any) -> Any:
            c = right(config)
            features = {k: v for k, v in changes.items() if hasattr(c.features, k)}
            layout = {k: v for k, v in changes.items() if k not in features}
            return replace(c, features=replace(c.features, **features), layout=replace(c.layout, **layout))

        patch.setattr(loading, "flat_config", wrong)

    return mutate


def changed_mixture(**changes: Any) -> Mutate:
    """Reads and decodes as if the mixtures had other numbers."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        right = flat_config

        def wrong(config: Any) -> Any:
            c = right(config)
            mixture = replace(c.features.mixture, **changes)
            return replace(c, features=replace(c.features, mixture=mixture))

        patch.setattr(loading, "flat_config", wrong)

    return mutate


def up_for_gate(patch: pytest.MonkeyPatch) -> None:
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        names = replace(c.layout.experts, gate_up=c.layout.experts.gate_up[::-1])
        return replace(c, layout=replace(c.layout, experts=names))

    patch.setattr(loading, "flat_config", wrong)


def gate_and_up_in_halves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(expert_reader, "_in_halves", lambda rows: rows)


def shared_expert_without_its_gate(patch: pytest.MonkeyPatch) -> None:
    right = feed_forward.choose

    def wrong(*given: Any) -> Any:
        chosen, shares = right(*given)
        shares[:, -1] = 1.0
        return chosen, shares

    patch.setattr(feed_forward, "choose", wrong)


def experts_of_the_neighbour(patch: pytest.MonkeyPatch) -> None:
    """Gives each token the shares of its own choice and the experts of the token before."""
    right = feed_forward.choose

    def wrong(*given: Any) -> Any:
        chosen, shares = right(*given)
        return chosen.roll(1, 0), shares

    patch.setattr(feed_forward, "choose", wrong)


def same_rope_everywhere(patch: pytest.MonkeyPatch) -> None:
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        return replace(c, features=replace(c.features, local_rope=c.rope))

    patch.setattr(loading, "flat_config", wrong)


def norm_of_each_head(patch: pytest.MonkeyPatch) -> None:
    right = loading.FlatModel
    patch.setattr(loading, "FlatModel", lambda c, *rest: right(replace(c, qk_norm="heads"), *rest))


def norm_of_the_first_head(patch: pytest.MonkeyPatch) -> None:
    """Reads the first head's norm as that of all."""
    right = flat_config

    def wrong(config: Any) -> Any:
        c = right(config)
        first = tuple(name.format(0) for name in c.layout.qk_norms)
        return replace(c, qk_norm="head", layout=replace(c.layout, qk_norms=first))

    patch.setattr(loading, "flat_config", wrong)


def alibi_without_scale(patch: pytest.MonkeyPatch) -> None:
    right = flat_module.Masks
    patch.setattr(flat_module, "Masks", lambda *given: right(*given[:3]))


def no_rotary(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flat_module, "rotate", lambda heads, cos, sin: None)


def interleaved_rotary(patch: pytest.MonkeyPatch) -> None:
    """Pairs neighbours, as GPT-J does, instead of halves."""

    def rotate(heads: Any, cos: Any, sin: Any) -> None:
        half = cos.shape[-1] // 2
        c, s = cos[..., :half], sin[..., half:]
        even, odd = heads[..., ::2].clone(), heads[..., 1::2].clone()
        heads[..., ::2] = even * c - odd * s
        heads[..., 1::2] = odd * c + even * s

    patch.setattr(flat_module, "rotate", rotate)


def no_attention_factor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rope_module, "longrope_attention", lambda rope: 1.0)


def layer_norm(patch: pytest.MonkeyPatch) -> None:
    """Centres before scaling, as LayerNorm does."""
    right = flat_module.rms_norm
    patch.setattr(flat_module, "rms_norm", lambda x, *rest: right(x - x.mean(-1, keepdim=True), *rest))


def plain_final_norm(patch: pytest.MonkeyPatch) -> None:
    """Normalises behind the last layer although the family's file has no weights for it."""
    right = loading.FlatModel

    def wrong(c: Any, info: Any, weights: Any) -> Any:
        return right(c, info, replace(weights, norm=Norm(torch.ones(c.hidden), torch.zeros(c.hidden))))

    patch.setattr(loading, "FlatModel", wrong)


def tied_head(patch: pytest.MonkeyPatch) -> None:
    """Takes the embedding as head although the file stores another."""
    right = loading.read_ends
    patch.setattr(loading, "read_ends", lambda *given: (right(*given)[0],) * 2)


def off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Steps believe to be one position further on (alike in all positions it would not matter)."""
    right = flat_module.FlatModel.new_positions

    def place(self: Any, ctx: Any, k: int, *rest: Any) -> Any:
        where = right(self, ctx, k, *rest)
        if k > 1:
            return where
        return replace(where, cos=ctx.cos[where.span, None], sin=ctx.sin[where.span, None])

    patch.setattr(flat_module.FlatModel, "new_positions", place)


MUTATIONS: dict[str, tuple[str, Mutate]] = {
    "no rotary": ("qwen2", no_rotary),
    "rotary pairs neighbours": ("llama", interleaved_rotary),
    "rotary base": ("llama", changed_rope(theta=101.0)),
    "no llama3 scaling": ("llama3 rope", changed_rope(kind="default")),
    "no linear scaling": ("linear rope", changed_rope(kind="default")),
    "no yarn scaling": ("yarn rope", changed_rope(kind="default")),
    "short factors on a long run": ("phi3 long rope", changed_rope(original=1000)),
    "no long rope attention factor": ("phi3 long rope", no_attention_factor),
    "full instead of partial rotary": ("phi3 partial", changed_rope(dim=16)),
    "no QKV bias": ("qwen2", changed_config(qkv_bias=False)),
    "no output bias": ("llama biased", changed_config(out_bias=False)),
    "no MLP bias": ("llama biased", changed_config(mlp_bias=False)),
    "no query and key norm": ("qwen3", changed_config(qk_norm=False)),
    "layer norm": ("qwen2", layer_norm),
    "norm epsilon": ("qwen2", changed_config(eps=1e-2)),
    "off by one": ("mistral", off_by_one),
    "window ignored": ("mistral windowed", changed_config(windows=(0, 0))),
    "window in every layer": ("qwen2 windowed above", changed_config(windows=(9, 9))),
    "window one too wide": ("phi3 windowed", changed_config(windows=(12, 12))),
    "head tied": ("qwen2", tied_head),
    "1 + w forgotten": ("gemma2", changed_reading(norm_offset=0.0)),
    "no embedding scale": ("gemma2", changed_features(embedding_scale=1.0)),
    "attention scale of the head's width": ("gemma2", changed_features(attention_scale=0.0)),
    "no cap on scores": ("gemma2", changed_features(score_cap=0.0)),
    "no cap on logits": ("gemma2", changed_features(logit_cap=0.0)),
    "no norm after": ("gemma2", changed_reading(norm_place="before")),
    "gated by another activation": ("gemma2", changed_features(activation="silu")),
    "windows in the other layers": ("gemma2", changed_config(windows=(0, 7))),
    "windowed layers with the others' rotary base": ("gemma3_text", same_rope_everywhere),
    "full layers with the windowed ones' rotary base": ("gemma3_text", changed_features(rotary=(1, 1))),
    "all frequencies of a proportional rope": ("gemma4_text", all_frequencies_turn),
    "values without their norm": ("gemma4_text", values_not_normed),
    "stream not scaled behind layers": ("gemma4_text", streams_not_scaled),
    "the first layer's input for all": ("gemma4 E", inputs_of_the_first),
    "keys of the first full layer": ("gemma4 sources", changed_sources),
    "norm before instead of after": (
        "olmo2",
        changed_reading(
            norm_place="before",
            attention_norm="post_attention_layernorm",
            mlp_norm="post_feedforward_layernorm",
        ),
    ),
    "norm of each head instead of the width": ("olmo2", norm_of_each_head),
    "rotary in every layer": ("smollm3", changed_features(rotary=())),
    "rotary in full layers": ("cohere2", changed_features(rotary=())),
    "no residual multiplier": ("granite", changed_features(residual_scale=1.0)),
    "no logit multiplier": ("granite", changed_features(logit_scale=1.0)),
    "no attention multiplier": ("granite", changed_features(attention_scale=0.0)),
    "neighbours not put in order": ("glm4", changed_reading(interleaved=False)),
    "neighbours put in order in the norms' way": ("cohere", changed_reading(interleaved=False)),
    "the whole head rotated": ("glm", changed_rope(dim=8)),
    "root mean square instead of layer norm": ("cohere", changed_features(norm="rms")),
    "norm bias forgotten": ("starcoder2", changed_reading(norm_bias=False)),
    "one after the other instead of parallel": ("gpt_neox", changed_features(parallel=False)),
    "one norm for both": ("gpt_neox", changed_reading(shared_norm=True)),
    "parallel instead of one after the other": ("starcoder2", changed_features(parallel=True)),
    "heads not put apart": ("gpt_neox", changed_reading(grouped=False)),
    "SiLU for the approximation of GELU": ("gpt2", changed_features(activation="silu")),
    "ReLU for GELU": ("gpt_neox", changed_features(activation="relu")),
    "another plain activation": ("opt", changed_features(activation="silu")),
    "no head bias": ("phi", changed_config(head_bias=False)),
    "no learned positions": ("gpt2", changed_reading(positions=0)),
    "shares not made to add up to 1": ("qwen3_moe", changed_mixture(normalised=False)),
    "shares made to add up to 1": ("olmoe", changed_mixture(normalised=True)),
    "one expert too few": ("mixtral", changed_mixture(active=1)),
    "up for gate": ("mixtral", up_for_gate),
    "experts of the token before": ("granitemoe", experts_of_the_neighbour),
    "no shared expert": ("qwen2_moe", changed_mixture(shared=0)),
    "a shared expert without its gate": ("qwen2_moe", shared_expert_without_its_gate),
    "no biases of router and experts": ("gpt_oss", changed_mixture(biased=False)),
    "gate and up in halves where they take turns": ("gpt_oss", gate_and_up_in_halves),
    "gate and up not clamped": ("gpt_oss", changed_mixture(limit=1000.0)),
    "SiLU for the clamped SwiGLU": ("gpt_oss", changed_mixture(limit=0.0)),
    "another factor in the clamped SwiGLU": ("gpt_oss", changed_mixture(alpha=1.0)),
    "no sinks": ("gpt_oss", changed_reading(sinks=False)),
    "windows in the wrong half": ("gpt_oss", changed_config(windows=(0, 9))),
    "learned positions one row off": ("opt", changed_features(position_offset=1)),
    "no bias of the attention's output alone": ("seed_oss", changed_config(out_bias=False)),
    "halves rotated in Ernie": ("ernie4_5", changed_reading(interleaved=False)),
    "ReLU not squared": ("arcee", changed_features(activation="relu")),
    "1 + w of a layer norm forgotten": ("nemotron", changed_reading(norm_offset=0.0)),
    "no norms of the heads": ("stablelm 12B", changed_config(qk_norm="")),
    "the first head's norm for all": ("stablelm 12B", norm_of_the_first_head),
    "the attention's norm for both": ("falcon 40B", changed_reading(shared_norm=True)),
    "groups of heads not put apart": ("falcon 40B", changed_reading(grouped=False)),
    "no norm before the feed-forward layer": ("falcon 11B", changed_features(parallel=False)),
    "no alibi": ("falcon RW", changed_features(alibi=False)),
    "alibi without the scale of scores": ("falcon RW", alibi_without_scale),
    "queries, keys and values of a head not put apart": ("falcon RW", changed_reading(grouped=False)),
    "norm of what is added instead of the sum": ("opt 350M", changed_features(norm_place="after")),
    "norm before instead of on the sum": (
        "opt 350M",
        changed_reading(
            norm_place="before", attention_norm="self_attn_layer_norm", mlp_norm="final_layer_norm"
        ),
    ),
    "a final norm that was removed": ("opt without final norm", plain_final_norm),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mistakes_are_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, mutate = MUTATIONS[name]
    # The mistakes are made in Python; that the one-call step gives the same numbers is tested on its own.
    monkeypatch.setattr(flat_module, "fuse", lambda *rest: None)
    path = checkpoint(tmp_path / "checkpoint", case)
    ids = random_ids(1, T)
    with torch.inference_mode():
        wanted = reference(path)(ids).logits

    def worst() -> float:
        model = flat(path)
        ctx = model.open(1, 64)
        first = model.prefill(ctx, ids[:, :PROMPT]).logits
        rest = one_by_one(model, ctx, ids[:, PROMPT:])
        return deviation(torch.cat((first, rest), 1), wanted[:, PROMPT - 1 :])

    assert worst() < TOLERANCE
    mutate(monkeypatch)
    monkeypatch.setattr(Weights, "unread", lambda _self: [])  # tensors left out are refused otherwise
    assert worst() > VISIBLE
