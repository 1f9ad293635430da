"""Auto follows the checkpoint's own `generation_config.json`, as `generate()` without arguments does.

Chain, in transformers' order: penalties → temperature → top-k → top-p → min-p → typical; each neutral
unless the file sets it. Without `do_sample` it is greedy. Settings of the file that ask for something else
(beams, n-gram bans …) are named in a notice, so that nobody is misled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_tui.decoders.base import (
    Decoder,
    Filter,
    Output,
    Param,
    ParamError,
    Params,
    Rng,
    State,
    Tensor,
    argmax,
    last_logits,
    numbers,
    only,
)
from edge_tui.decoders.min_p import MinP
from edge_tui.decoders.penalties import REPETITION, penalties
from edge_tui.decoders.temperature import TEMPERATURE, Temperature
from edge_tui.decoders.top_k import TopK
from edge_tui.decoders.top_p import TopP
from edge_tui.decoders.typical import Typical

DO_SAMPLE = Param.choice(
    "do_sample", ("off", "on"), "Draw from the distribution; off takes the likeliest token."
)
FILTERS = (TopK, TopP, MinP, Typical)


def _off(cls: type[Filter]) -> Filter:
    """Makes a filter that does nothing unless its parameter is set."""
    filter = cls()
    off = (replace(param, default=param.neutral or 0.0) for param in numbers(cls.params))
    filter.params = tuple(off)  # type: ignore[misc]  # of this object
    return filter


_FILTERS = tuple(_off(cls) for cls in FILTERS)
_SETTINGS = (
    DO_SAMPLE,
    TEMPERATURE,
    *(param for each in _FILTERS for param in numbers(each.params)),
    REPETITION,
)
GENERATE_TOP_K = 50
"""The `top_k` of `generate()` where the file names none."""

_IGNORED: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "epsilon_cutoff": (0.0, 1.0),
    "eta_cutoff": (0.0, 1.0),
    "top_h": (),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "bad_words_ids": (),
    "force_words_ids": (),
    "constraints": (),
    "sequence_bias": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "watermarking_config": (),
    "prompt_lookup_num_tokens": (),
    "stop_strings": (),
}
"""Keys that change what `generate()` decodes and are not followed here, with the values that do nothing."""


class Auto(Decoder):
    """Samples or takes the argmax, as the checkpoint's own settings say."""

    name = "auto"
    title = "auto"
    summary = "As the checkpoint's own generation settings say."
    rank = 8
    openai = True

    def __init__(self) -> None:
        super().__init__(penalties(), (Temperature(), *_FILTERS), _SETTINGS)

    def from_checkpoint(self, generation_config: Mapping[str, Any]) -> dict[str, float]:
        """Reads the file's keys that are parameters, as far as they are in range.

        A file that samples without naming `top_k` gets 50, because that is what `generate()` does.
        """
        return _parse(generation_config)[0]

    def ignored_settings(self, generation_config: Mapping[str, Any]) -> tuple[str, ...]:
        """Names the settings of that file without a stage here, and those out of range."""
        sentences = [
            f"generation_config.json sets {key} = {generation_config[key]!r}, which auto does not follow."
            for key, neutral in _IGNORED.items()
            if generation_config.get(key) is not None and generation_config[key] not in neutral
        ]
        return (*sentences, *_parse(generation_config)[1])

    def final(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        z = self.before.apply(last_logits(outs["model"], s), p, s, rng)
        return self.after.apply(z, p, s, rng).where(p["do_sample"] > 0, only(z, argmax(z)))


def _parse(config: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Reads the values of a generation_config.json, and a sentence for each that is out of range."""
    values: dict[str, float] = {}
    errors: list[str] = []
    for param in _SETTINGS:
        if (value := config.get(param.name)) is not None:
            try:
                values[param.name] = param.parse(value)
            except ParamError as error:
                errors.append(f"generation_config.json is not followed there: {error}")
    if values.get("do_sample") and config.get("top_k") is None:
        values["top_k"] = GENERATE_TOP_K
    return values, tuple(errors)
