"""Resolves a request's parameters, each with its source, and checks its ids and lengths. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_tui import decoders
from edge_tui.decoders.base import AnyParam, Decoder, Param, ParamError, Text, TextParam, numbers, texts
from edge_tui.engine import seeds
from edge_tui.engine.events import Resolved
from edge_tui.engine.port import MODE_TEMPERATURE, Request
from edge_tui.errors import PromptTooLong, RequestError

CHECKPOINT = "generation_config.json"
"""Name of the source of a checkpoint's own values."""


@dataclass(frozen=True, slots=True)
class ResolvedParams:
    """Holds a request's parameters as its run will use them.

    Attributes:
        values: The numbers by name, as the device sees them.
        resolved: Numbers and texts by name, with source, for display.
        seed: The seed in use.
        texts: The texts by name.
    """

    values: dict[str, float]
    resolved: dict[str, Resolved]
    seed: int
    texts: dict[str, Text] = field(default_factory=dict)


def resolve_params(
    request: Request, decoder: Decoder, checkpoint_values: Mapping[str, float]
) -> ResolvedParams:
    """Resolves parameters: default < the checkpoint's own (`auto`) < the request's < the mode's temperature.

    A request has a mode only where that decides; `Settings.for_run` has weighed it against temperatures.

    Args:
        request: The request.
        decoder: The strategy; its parameters are the ones that exist.
        checkpoint_values: Values of the checkpoint's generation_config.json; empty for other strategies.

    Raises:
        RequestError: an unknown parameter, or a value out of range, with the parameter as its field.
    """
    known = {param.name: param for param in decoder.params}
    unknown = [name for name in request.values if name not in known]
    if unknown:
        raise RequestError(
            f"{decoder.title} has no parameter {unknown[0]!r}; it has {', '.join(known)}.", unknown[0]
        )
    values = {param.name: param.default for param in numbers(decoder.params)}
    written = {param.name: param.default for param in texts(decoder.params)}
    sources = dict.fromkeys(known, "default")
    for name, value in checkpoint_values.items():
        if name in values:
            values[name], sources[name] = value, CHECKPOINT
    for name, given in request.values.items():
        try:
            if isinstance(param := known[name], TextParam):
                written[name] = param.parse(given)
            else:
                values[name] = param.parse(given)
        except ParamError as error:
            raise RequestError(str(error), name) from error
        sources[name] = request.sources.get(name, "user")
    if request.mode in MODE_TEMPERATURE and "temperature" in known:
        values["temperature"] = MODE_TEMPERATURE[request.mode]
        own = None if "temperature" in request.values else request.sources.get("temperature")
        sources["temperature"] = own or f"mode {request.mode}"

    def shown(param: Param, value: float) -> float | str:
        return param.text(value) if param.choices else value

    overridden = {name for name in checkpoint_values if sources.get(name) not in (None, CHECKPOINT)}
    resolved = {
        name: Resolved(written[name], sources[name])
        if isinstance(param, TextParam)
        else Resolved(
            shown(param, values[name]),
            sources[name],
            shown(param, checkpoint_values[name]) if name in overridden else None,
        )
        for name, param in known.items()
    }
    seed = seeds.draw() if request.seed is None or request.seed < 0 else request.seed
    return ResolvedParams(values, resolved, seed, written)


def find_param(strategy: str, name: str) -> AnyParam:
    """Finds a strategy's parameter.

    Raises:
        ParamError: it has none of that name.
    """
    for param in decoders.find(strategy).params:
        if param.name == name:
            return param
    raise ParamError(f"{strategy} has no parameter {name!r}.")


def check_ids(ids: Sequence[int], size: int, field: str) -> None:
    """Refuses ids that are no tokens of a model; a device would answer them with a fault.

    Args:
        ids: Token ids that a request holds.
        size: Ids go from 0 to one below it.
        field: The request's field that they come from.

    Raises:
        RequestError: one of them is no whole number, or out of range.
    """
    for token in ids:
        if type(token) is not int or not 0 <= token < size:
            place = "prompt" if field == "ids" else field
            raise RequestError(
                f"The {place} has the token id {repr(token)[:40]}, but ids are whole numbers from 0 to"
                f" {size - 1}.",
                field,
            )


def clamp_max_length(
    prompt: int, prefix: int, max_length: int, context: int, least: int = 1
) -> tuple[int, str]:
    """Clamps the number of new tokens to the context; returns a sentence too where that was necessary.

    Args:
        prompt: Tokens of the prompt.
        prefix: Generated tokens of an earlier run.
        max_length: Bound of new tokens that the request has.
        context: The model's limit in tokens.
        least: New tokens that make a run; 0 where the request is about the prompt itself.

    Raises:
        PromptTooLong: prompt and prefix fill the context.
        RequestError: fewer than `least` tokens were asked for.
    """
    if max_length < least:
        raise RequestError(
            f"max_length is {max_length}, but must be at least {least} new token.", "max_length"
        )
    taken = prompt + prefix
    left = context - taken
    if left < least:
        field = "prompt" if prompt + least > context else "prefix"
        both = f" and the prefix {prefix}" if prefix else ""
        room = " with at least one new token" if least else ""
        raise PromptTooLong(
            f"The prompt has {prompt} tokens{both}, but the context holds {context}{room}:"
            f" shorten the {field} by {least - left} or load the model with a larger context.",
            field,
        )
    if max_length > left:
        return left, f"Only {left:,} of {max_length:,} new tokens fit: {taken:,} of {context:,} are taken."
    return max_length, ""
