"""Auto follows the checkpoint's own `generation_config.json`, as `generate()` without arguments does.

Chain, in transformers' order: penalties → temperature → top-k → top-p → min-p → typical; each neutral
unless the file sets it. Without `do_sample` it is greedy. Where the file sets them there are more stages,
which no parameter changes: `no_repeat_ngram_size`, `min_new_tokens` and `bad_words_ids` after the penalties,
`top_h` after the temperature, `epsilon_cutoff` and `eta_cutoff` at the end. Settings that ask for something
else (beams, guidance …) are named in a notice, so that nobody is misled.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any, TypeAlias

from edge_tui.decoders.bad_words import BadWords
from edge_tui.decoders.base import (
    LONGEST,
    Criterion,
    Decoder,
    Env,
    Filter,
    Link,
    Output,
    Param,
    ParamError,
    Params,
    Rng,
    Sequences,
    Stage,
    State,
    Tensor,
    last_logits,
    numbers,
    only,
)
from edge_tui.decoders.core.step_log import take_best
from edge_tui.decoders.epsilon import Epsilon
from edge_tui.decoders.eta import Eta
from edge_tui.decoders.min_new_tokens import MinNewTokens
from edge_tui.decoders.min_p import MinP
from edge_tui.decoders.no_repeat_ngram import NoRepeatNgram
from edge_tui.decoders.penalties import REPETITION, penalties
from edge_tui.decoders.temperature import TEMPERATURE, Temperature
from edge_tui.decoders.top_h import TopH
from edge_tui.decoders.top_k import TopK
from edge_tui.decoders.top_p import TopP
from edge_tui.decoders.typical import Typical

DO_SAMPLE = Param.choice(
    "do_sample", ("off", "on"), "Draw from the distribution; off takes the likeliest token."
)
FILTERS = (TopK, TopP, MinP, Typical)
STAGES = (NoRepeatNgram, MinNewTokens, TopH, Epsilon, Eta)
"""Stages of one number that are there only where the file sets it, in transformers' order."""
_OFF: Mapping[type[Filter], float] = {Epsilon: 1.0, Eta: 1.0}
"""Values at which `generate()` leaves a stage out, beside the neutral one."""
BAD_WORDS = "bad_words_ids"
_Values: TypeAlias = tuple[tuple[type[Filter], float], ...]
_Ids: TypeAlias = tuple[tuple[int, ...], ...]


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
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "min_length": (0,),
    "guidance_scale": (1.0,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
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


class _Fixed(Filter):
    """Applies a filter with a value that no parameter changes.

    Args:
        filter: The filter, of one parameter.
        value: The parameter's.
    """

    name = ""  # no strategy of its own

    def __init__(self, filter: Filter, value: float) -> None:
        (self.param,) = numbers(filter.params)
        self.filter, self.value = filter, value
        self.name, self.penalty, self.needs = filter.name, filter.penalty, filter.needs  # type: ignore[misc]
        self.reshapes = filter.reshapes  # type: ignore[misc]
        self.title = f"{filter.title} {self.param.text(value)}"  # type: ignore[misc]

    def constants(self, env: Env) -> State:
        """Makes the filter's constants, and the value as float32 `[1, 1]`."""
        import torch

        value = torch.full((1, 1), self.value, device=env.device)
        return {**self.filter.constants(env), self.param.name: value}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Applies the filter."""
        return self.filter.apply(z, self._values(p, s), s, rng)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion | None:
        """Gives the filter's numbers."""
        return self.filter.criterion(z, self._values(p, s), s, rng)

    def _values(self, p: Params, s: State) -> Params:
        values = Params((), p.table)
        values[self.param.name] = s[self.param.name]
        return values


class _BadIds(BadWords):
    """Bars sequences of ids.

    Args:
        ids: The sequences.
    """

    name = ""  # no strategy of its own
    params = ()  # type: ignore[assignment]

    def __init__(self, ids: _Ids) -> None:
        self.ids = ids
        self.name = BadWords.name  # type: ignore[misc]  # of this object

    def sequences(self, env: Env) -> Sequences:
        """Gives each −inf."""
        return dict.fromkeys(self.ids, -inf)


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

    def with_settings(self, generation_config: Mapping[str, Any]) -> Decoder:
        """Adds the stages that are there only where the file sets them; one object for the same settings."""
        values, ids, _ = _parse_stages(generation_config)
        return _with_stages(self, values, ids) if values or ids else self

    def ignored_settings(self, generation_config: Mapping[str, Any]) -> tuple[str, ...]:
        """Names the settings of that file without a stage here, and those out of range."""
        sentences = [
            f"generation_config.json sets {key} = {generation_config[key]!r}, which auto does not follow."
            for key, neutral in _IGNORED.items()
            if generation_config.get(key) is not None and generation_config[key] not in neutral
        ]
        return (*sentences, *_parse(generation_config)[1], *_parse_stages(generation_config)[2])

    def draws(self, values: Mapping[str, float]) -> bool:
        return values["do_sample"] > 0

    def final(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        z = self.before.apply(last_logits(outs["model"], s), p, s, rng)
        draws = p["do_sample"] > 0
        likeliest = only(z, take_best(z, ~draws))
        return self.after.apply(z.where(draws, likeliest), p, s, rng).where(draws, likeliest)


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


def _parse_stages(config: Mapping[str, Any]) -> tuple[_Values, _Ids, tuple[str, ...]]:
    """Reads values of `STAGES`, the sequences of ids to bar, and a sentence for what cannot be followed."""
    values: dict[type[Filter], float] = {}
    errors: list[str] = []
    for stage in STAGES:
        (param,) = numbers(stage.params)
        value = config.get(param.name)
        if value is not None and value not in (param.neutral, _OFF.get(stage)):
            try:
                values[stage] = param.parse(value)
            except ParamError as error:
                errors.append(f"generation_config.json is not followed there: {error}")
    listed = config.get(BAD_WORDS) or ()
    if not _are_sequences(listed):
        errors.append(
            f"generation_config.json is not followed there: {BAD_WORDS} must be lists of 1 to {LONGEST} ids."
        )
        listed = ()
    return tuple(values.items()), tuple(map(tuple, listed)), tuple(errors)


def _are_sequences(listed: object) -> bool:
    """Tells whether a value holds sequences of ids that can be barred."""
    return isinstance(listed, list | tuple) and all(
        isinstance(ids, list | tuple)
        and 0 < len(ids) <= LONGEST
        and all(type(token) is int and token >= 0 for token in ids)
        for ids in listed
    )


@lru_cache(maxsize=16)
def _with_stages(auto: Auto, values: _Values, ids: _Ids) -> Decoder:
    """Makes auto with more stages; those that are around it already stay alone.

    The object is kept, because captured graphs belong to one.
    """
    stages: list[Stage] = [_Fixed(stage(), value) for stage, value in values]
    stages += [_BadIds(ids)] if ids else []
    present = {link.name for link in (*auto.before.links, *auto.after.links)}
    links = [Link(stage) for stage in stages if stage.name not in present]
    penalties = [link for link in links if link.stage.penalty]
    first = [link for link in links if link.name == TopH.name]
    rest = [link for link in links if link not in (*penalties, *first)]
    temperature, *filters = auto.after.links
    selecting = [link for link in filters if link.stage.last]
    filters = [link for link in filters if not link.stage.last]
    decoder = copy(auto)
    decoder._set_chains((*auto.before.links, *penalties), (temperature, *first, *filters, *rest, *selecting))
    return decoder
