"""Reads from a run what a strategy that learns needs to know of the tokens that another run keeps of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import nan
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.base import ParamError, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.port import Request
    from edge_tui.transcript.transcript import Alternative, Transcript

Logps = tuple[tuple[float, float], ...]
Values = tuple[tuple[int, dict[str, float | str]], ...]


def with_kept(request: Request, transcript: Transcript, before: Request, decoder: Decoder) -> Request:
    """Adds to a request what its kept tokens were taken under; nothing for a strategy that learns nothing.

    Args:
        request: It goes on from tokens of the transcript; its last one may be an alternative.
        transcript: The tokens.
        before: The request that they are of.
        decoder: The strategy that goes on.
    """
    if not decoder.learns or not request.prefix:
        return request
    return replace(
        request,
        prefix_logps=kept_logps(transcript, request.prefix),
        prefix_values=kept_values(transcript, before, len(request.prefix), decoder),
    )


def kept_logps(transcript: Transcript, prefix: Sequence[int]) -> Logps:
    """Reads the log-probabilities of kept tokens, as `Request.prefix_logps` has them.

    Args:
        transcript: The tokens.
        prefix: Ids of its first tokens; the last one may be another than the transcript's.
    """
    columns = [transcript.column(name, 0, len(prefix)).tolist() for name in ("raw_logp", "final_logp")]
    logps = list(zip(*columns, strict=True))
    last = len(prefix) - 1
    token = transcript.token(last)
    if token.id != prefix[last]:
        logps[last] = (_logp(token.top, prefix[last]), _logp(token.final, prefix[last]))
    return tuple(logps)


def _logp(alternatives: Iterable[Alternative], token: int) -> float:
    return next((each.logp for each in alternatives if each.id == token), nan)


def kept_values(transcript: Transcript, before: Request, count: int, decoder: Decoder) -> Values:
    """Lists the parameters of the first tokens of a run, as `Request.prefix_values` has them.

    Args:
        transcript: The run's tokens.
        before: Its request.
        count: Number of the tokens.
        decoder: Parameters that it does not have are left out.
    """
    # A run that went on has told the values of what it kept.
    first = len(before.prefix) if before.prefix_values else 0
    now: dict[str, Any] = {name: each.value for name, each in transcript.started.values.items()}
    listed: dict[int, Mapping[str, Any]] = {**dict(before.prefix_values), first: dict(now)}
    for change in transcript.changes:
        if change.index >= first:
            now[change.name] = change.value
            listed[change.index] = dict(now)
    return tuple(
        (index, _taken(values, decoder)) for index, values in sorted(listed.items()) if index < count
    )


def _taken(values: Mapping[str, Any], decoder: Decoder) -> dict[str, float | str]:
    """Selects the numbers that a strategy takes."""
    taken: dict[str, float | str] = {}
    for param in numbers(decoder.params):
        if param.name in values:
            with suppress(ParamError):
                taken[param.name] = param.parse(values[param.name])
    return taken
