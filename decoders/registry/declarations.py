"""Checks the declarations of a strategy's class, when its file is read. Loads no torch."""

from __future__ import annotations

import inspect
import re
from keyword import iskeyword
from math import inf, isfinite
from types import UnionType
from typing import cast, get_args

from edge_tui.decoders.core.attributes import walk
from edge_tui.decoders.core.column import ROLES, Column, as_columns, repeated
from edge_tui.decoders.core.criterion import Edge
from edge_tui.decoders.core.decoder import Decoder, Stream
from edge_tui.decoders.core.errors import StrategyError, fault
from edge_tui.decoders.core.params import Param, ParamError
from edge_tui.decoders.core.stage import Filter, Needs, Stage
from edge_tui.decoders.core.texts import AnyParam, TextParam, numbers

_METHODS: dict[type, tuple[str, ...]] = {
    Stage: ("constants", "init", "apply", "criterion", "observe"),
    Decoder: (
        *("constants", "init", "prompts", "logits", "final", "choose", "observe", "step", "propose"),
        *("rows", "draws", "needs_of", "num_draft_tokens", "finish", "ranked"),
        *("from_checkpoint", "with_settings", "luck", "criterion"),
    ),
}
"""Methods that the engine calls."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def check_class(cls: type) -> None:
    """Checks a class before it is made an object.

    Raises:
        StrategyError: a name, a method or a tuple is missing or malformed.
    """
    for attribute in ("name", "title", "summary"):
        if not isinstance(getattr(cls, attribute, None), str):
            raise fault(cls, f"has no {attribute}.")
    if not _NAME.fullmatch(name := str(getattr(cls, "name", ""))):
        raise StrategyError(f"the name {name!r} is not lower case letters, digits and underscores.", cls)
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise fault(cls, f"has no {' and no '.join(missing)}.")
    rank = getattr(cls, "rank", 0)
    if isinstance(rank, bool) or not isinstance(rank, int | float):
        raise StrategyError(f"{cls.__name__}.rank is {rank!r}, but must be a number.", cls)
    for attribute, kind in (("params", AnyParam), ("roles", str), ("columns", str | Column)):
        declared = getattr(cls, attribute, ())
        if isinstance(declared, property):
            continue
        if not isinstance(declared, tuple) or not all(isinstance(each, kind) for each in declared):
            raise StrategyError(f"{cls.__name__}.{attribute} must be a tuple of {_kind_name(kind)}.", cls)
    _check_methods(cls)


def _kind_name(kind: type | UnionType) -> str:
    return " and ".join(each.__name__ for each in get_args(kind) or (kind,))


def _check_methods(cls: type) -> None:
    """Checks that the engine can call each method as it does."""
    for base, methods in _METHODS.items():
        for name in methods if issubclass(cls, base) else ():
            declared = list(inspect.signature(getattr(base, name)).parameters)
            method = inspect.getattr_static(cls, name)
            names = declared[1:] if isinstance(method, staticmethod | classmethod) else declared
            function = getattr(method, "__func__", method)
            try:
                inspect.signature(function).bind(*names)
            except TypeError:
                sentence = f"{cls.__name__}.{name} must take ({', '.join(declared[1:])})."
                raise StrategyError(sentence, function) from None
            except ValueError:
                continue  # no signature to be had: a method written in C


def check_decoder(decoder: Decoder, cls: type) -> None:
    """Checks a strategy object: parameters, streams, stages.

    Args:
        decoder: The strategy; of a filter, the `Sampling` that wraps it.
        cls: The class in the user's file.

    Raises:
        StrategyError, ParamError: one sentence.
    """
    stages = stages_of(decoder)
    owners: list[Decoder | Stage] = [decoder, *stages]
    for owner in owners:
        _check_params(owner)
        _check_needs(owner)
        _check_columns(owner)
    for stage in stages:
        if not isinstance(stage, Filter) or not isinstance(stage.edge, Edge):
            continue
        if stage.edge.param not in [p.name for p in numbers(stage.params) if p.neutral is not None]:
            names = f"{type(stage).__name__}.edge names the parameter {stage.edge.param!r}"
            raise StrategyError(f"{names}, which must be one of its own with a neutral value.", type(stage))
    _check_streams(decoder, cls)
    values = {param.name: param.default for param in numbers(decoder.params)}
    check_shape(decoder, decoder.rows(values), decoder.num_draft_tokens(values), cls)


def stages_of(decoder: Decoder) -> list[Stage]:
    """Lists every stage that a strategy holds, each once."""
    held = (value for _, _, value in walk(decoder, files=False))
    return list({id(value): value for value in held if isinstance(value, Stage)}.values())


def _check_params(owner: Decoder | Stage) -> None:
    """Checks names, bounds and defaults."""
    kind = type(owner).__name__
    names = [param.name for param in owner.params]
    for param in owner.params:
        name = param.name
        if names.count(name) > 1:
            raise ParamError(f"{kind} declares the parameter {name} twice.")
        if not str(name).isidentifier() or iskeyword(name):
            raise ParamError(f"the parameter name {name!r} is no identifier, as in Python.")
        if isinstance(param, TextParam):
            if not (param.check is None or callable(param.check)):
                raise ParamError(f"the check of {name} is {param.check!r}, but must be a function.")
        else:
            _check_bounds(param)
        param.parse(param.default)


def _check_bounds(param: Param) -> None:
    """Checks choices, range, step and neutral value of a number."""
    name, last = param.name, len(param.choices) - 1
    if param.choices and (param.low, param.high) != (0, last):
        raise ParamError(f"{name} has {last + 1} choices, so low must be 0 and high {last}.")
    if not -inf < param.low <= param.high < inf:
        bounds = f"{name} goes from {param.low} to {param.high}"
        raise ParamError(f"{bounds}; low must be below high, both finite.")
    if not 0 < param.step < inf:
        raise ParamError(f"{name} has the step {param.step}, but must have one above 0.")
    if param.neutral is not None:
        try:
            param.parse(param.neutral)
        except ParamError as error:
            raise ParamError(f"the neutral value of {error}") from None


def _check_columns(owner: Decoder | Stage) -> None:
    """Checks names and roles of recorded numbers."""
    columns, kind = as_columns(owner.columns), type(owner)
    if name := repeated(column.name for column in columns):
        raise StrategyError(f"{kind.__name__}.columns has the name {name!r} twice.", kind)
    for column in columns:
        if column.role not in ROLES:
            known = ", ".join(map(repr, ROLES))
            sentence = f"{kind.__name__} gives its column {column.name!r} the role {column.role!r}"
            raise StrategyError(f"{sentence}, which must be one of {known}.", kind)
        if not all(bound is None or isfinite(bound) for bound in (column.low, column.high)):
            sentence = f"{kind.__name__} gives its column {column.name!r} a bound that is not finite"
            raise StrategyError(f"{sentence}: leave it out.", kind)


def _check_needs(owner: Decoder | Stage) -> None:
    """Refuses needs that nothing provides."""
    needs, kind = getattr(owner, "needs", Needs()), type(owner)
    name = f"{kind.__name__}.needs"
    if not isinstance(needs, Needs):
        raise StrategyError(f"{name} is {needs!r}, but must be Needs(…).", kind)
    for field in ("hidden", "early"):
        layers = getattr(needs, field)
        if not isinstance(layers, tuple) or not all(type(layer) is int for layer in layers):
            raise StrategyError(f"{name} has {field}={layers!r}, but must have a tuple of layers.", kind)
    if needs.layers and isinstance(owner, Stage):
        advice = "a Decoder finds hidden states in the Output of its step"
        raise StrategyError(f"{name} asks for layers, which a stage never sees: {advice}.", kind)
    if needs.counts and not isinstance(owner, Stage):
        advice = "put what needs counts into a Stage of a Chain"
        raise StrategyError(f"{name} is read of stages alone: {advice}.", kind)


def _check_streams(decoder: Decoder, cls: type) -> None:
    """Checks that every stream can be read, by a name of its own."""
    kind = cls.__name__
    roles, streams = decoder.roles, cast("object", decoder.streams)
    if not isinstance(streams, tuple) or not all(isinstance(stream, Stream) for stream in streams):
        raise StrategyError(f"{kind}.streams must be a tuple of Stream.", cls)
    if not streams or not roles:
        raise fault(cls, "reads no stream; it must have a role and a stream of it.")
    names, readers = [stream.name for stream in streams], [stream.role for stream in streams]
    for name, role in zip(names, readers, strict=True):
        if role not in roles:
            raise StrategyError(f"the stream {name!r} reads {role!r}, which is no role.", cls)
        if names.count(name) > 1:
            raise fault(cls, f"has two streams with the name {name!r}.")
    made = {stream.prompt for stream in streams if stream.prompt}
    if made and type(decoder).prompts is Decoder.prompts:
        raise fault(cls, f"has a stream that reads the prompt {min(made)!r}, which its prompts must make.")
    if streams[0].prompt:
        raise fault(cls, "has a first stream with a prompt of its own; it must read the user's.")
    if unread := [role for role in roles if role not in readers]:
        raise fault(cls, f"has the role {unread[0]!r}, which no stream reads.")
    if readers[0] != roles[0]:
        raise StrategyError(f"the first stream must read the first role, {roles[0]!r}.", cls)


def check_shape(decoder: Decoder, rows: object, draft_tokens: object, cls: type | None = None) -> None:
    """Checks how many rows and proposals a strategy asks for.

    Raises:
        StrategyError: they are no whole numbers, or no face could show them.
    """
    for method, count, least in ((decoder.rows, rows, 1), (decoder.num_draft_tokens, draft_tokens, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise fault(method, f"returned {count!r}; it must return a whole number of {least} or more.")
    kind, at = type(decoder), cls or type(decoder)
    several, must = rows != 1, f"has {rows} rows for one answer, so it must"
    if several and not decoder.owns_eos:
        raise fault(at, f"{must} set owns_eos and say itself, by Step.done, when it ends.")
    if several and kind.finish is Decoder.finish and kind.ranked is Decoder.ranked:
        raise fault(at, f"{must} have finish, which chooses one.")
    if draft_tokens and (several or decoder.owns_eos or len(decoder.streams) > 2):
        needs = "one row, one stream or two with the draft's last, and no owns_eos"
        raise fault(at, f"proposes tokens, so it must have {needs}.")
    if draft_tokens and kind.propose is Decoder.propose:
        raise fault(at, "proposes tokens, so it must have propose.")
