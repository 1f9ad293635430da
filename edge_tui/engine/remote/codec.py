"""Writes requests and events of the engine as JSON and reads them back: the protocol between two edge-tui.

`edge_tui.serve` and the remote engine share it, so that what one writes the other reads. Its fields are those
of the dataclasses in `engine/events.py` and `engine/port.py`, and `TOKEN_FIELDS`. Texts of tokens travel once
for each token id. JSON knows no infinity and no NaN: such numbers are null, and read as their field's empty
value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from math import isnan
from typing import Any

from edge_tui.engine.events import (
    Event,
    Finished,
    FirstToken,
    Loaded,
    Noticed,
    ParamChanged,
    Progress,
    PromptRead,
    Resolved,
    Started,
    TokenBatch,
)
from edge_tui.engine.port import Request
from edge_tui.engine.token_fields import TOKEN_FIELDS, TOP
from edge_tui.util.dataclass_json import build

REQUEST_FIELDS = tuple(
    field.name for field in fields(Request) if field.name not in ("prompt", "ids", "sources", "watched")
)
"""Fields of `Request` that a client sends beside the prompt."""
REQUEST_KEYS = {"ids": "prompt", "values": "params", "template": "chat_template_kwargs", "samples": "n"}
"""Keys of fields of requests and events that have another name in JSON."""


EVENTS: Mapping[str, type[Any]] = {
    "start": Started,
    "first": FirstToken,
    "change": ParamChanged,
    "notice": Noticed,
    "progress": Progress,
    "end": Finished,
}
"""Server-sent events by name. Beside them there are "prompt", "tokens" and "error"."""
_PROMPT_ARRAYS = {
    **dict.fromkeys(("rank", "top_ids", "next_ids"), "int32"),
    **dict.fromkeys(("logp", "entropy", "top_logp", "next_logp"), "float32"),
}
"""Arrays of `PromptRead` with their types."""
_NAMES = {event: name for name, event in EVENTS.items()}
_NOT_SENT = ("run", "answer", "answer_text", "score")
"""Fields that each side has itself, or that follow from `ranked`."""


def write_request(request: Request) -> dict[str, Any]:
    """Returns the body of `/infer/stream` for a request."""
    prompt: Any = request.prompt
    if request.ids:
        prompt = request.ids
    elif not isinstance(prompt, str):
        prompt = [asdict(turn) for turn in prompt]
    body = {REQUEST_KEYS.get(name, name): getattr(request, name) for name in REQUEST_FIELDS}
    body["prefix_logps"] = [[None if isnan(x) else x for x in pair] for pair in request.prefix_logps]
    for name in ("chat_template_kwargs", "prefix_logps", "prefix_values", "proposing_ends", "prompt_logps"):
        # An older server refuses fields that it does not know. A step may be 0.
        if body[name] is None or (name != "proposing_ends" and not body[name]):
            del body[name]
    return {"prompt": prompt, **body}


def write_event(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Returns an event's name and fields; None for one that is not sent (tokens have their own writer)."""
    if (name := _NAMES.get(type(event))) is None:
        return None
    sent = (field.name for field in fields(event) if field.name not in _NOT_SENT)
    data = {REQUEST_KEYS.get(field, field): getattr(event, field) for field in sent}
    if isinstance(event, Started):
        data["params"] = write_params(event.values)
        data["column_details"] = [asdict(column) for column in event.column_details]
    if isinstance(event, Finished):
        data["ranked"] = [asdict(each) for each in event.ranked]
    return name, data


def read_event(run: int, name: str, data: Any) -> Event | None:
    """Returns the event that `write_event` wrote; None for a name that only newer servers know.

    Raises:
        LookupError, TypeError, ValueError: the data is no such event.
    """
    if name not in EVENTS:
        return None
    own = {field: data[key] for field, key in REQUEST_KEYS.items() if key in data}
    event: Event = build(EVENTS[name], {**data, **own, "run": run})
    if isinstance(event, Finished) and event.ranked:
        best = event.ranked[0]
        event = replace(event, answer=best.tokens, answer_text=best.text, score=best.score)
    return event


def read_loaded(role: str, data: Any, host: str) -> Loaded:
    """Returns the model that a server describes (`asdict` of its own `Loaded`), as seen from here.

    Raises:
        LookupError, TypeError, ValueError: the data is no such model.
    """
    device = f"{data['device']} of {host}"
    return build(Loaded, {**data, "role": role, "tier": "remote", "device": device, "seconds": 0.0})


def write_prompt(
    prompt: PromptRead, sent: set[int], decode: Callable[[Sequence[int]], list[str]]
) -> dict[str, Any]:
    """Returns what the model thinks of a prompt, column by column.

    Args:
        prompt: The prompt.
        sent: Ids whose texts the client has; those of the prompt and its alternatives are added.
        decode: Display texts of ids.
    """
    shown = [*prompt.ids, *prompt.top_ids.flat, *prompt.next_ids]
    columns = {
        name: _finite(value) if name in _PROMPT_ARRAYS else value
        for name, value in ((field.name, getattr(prompt, field.name)) for field in fields(prompt))
        if name != "run"
    }
    return {**columns, "pieces": _pieces(shown, sent, decode)}


def read_prompt(run: int, data: Mapping[str, Any]) -> PromptRead:
    """Returns the prompt that `write_prompt` wrote; its `pieces` are for the caller.

    Raises:
        LookupError, TypeError, ValueError, OverflowError: the data is no such prompt.
    """
    import numpy as np

    ids = tuple(map(int, data["ids"]))
    arrays: dict[str, Any] = {}
    for name, dtype in _PROMPT_ARRAYS.items():
        values = np.array(data[name], dtype=object)
        filled = np.where(values == None, np.nan if dtype == "float32" else -1, values)  # noqa: E711 — elementwise
        rows = () if name.startswith("next") else (len(ids),)
        shape = rows if name in ("logp", "rank", "entropy") else (*rows, TOP)
        arrays[name] = filled.astype(dtype).reshape(shape)
    return PromptRead(
        run=run,
        ids=ids,
        next_entropy=float(data["next_entropy"]),
        text=tuple(map(str, data["text"])),
        roles=tuple(map(str, data["roles"])),
        control_ids=tuple(map(int, data["control_ids"])),
        **arrays,
    )


def _finite(values: Any) -> Any:
    """Returns an array as lists, with None for numbers that JSON lacks."""
    import numpy as np

    finite: Any = np.where(np.isfinite(values), values.astype(object), None)
    return finite.tolist()


def _pieces(
    shown: Iterable[int], sent: set[int], decode: Callable[[Sequence[int]], list[str]]
) -> list[list[Any]]:
    """Returns the ids that are not in `sent` yet and their texts, and adds them to it."""
    ids = sorted({int(token) for token in shown if token >= 0} - sent)
    sent.update(ids)
    return [ids, decode(ids)]


def write_tokens(
    batch: TokenBatch, sent: set[int], decode: Callable[[Sequence[int]], list[str]]
) -> dict[str, Any]:
    """Returns a batch column by column, with the texts of the ids that are not in `sent` yet.

    Args:
        batch: The tokens.
        sent: Ids whose texts the client has; those of the batch are added.
        decode: Display texts of ids.
    """
    import numpy as np

    columns = {}
    for field in TOKEN_FIELDS:
        if (values := getattr(batch, field.name)) is not None:
            columns[field.name] = _finite(values)
            if field.name == "margin":  # the word for a token that was the only one left
                alone = np.flatnonzero(np.isposinf(values)).tolist()
                for place in alone:
                    columns[field.name][place] = "inf"
    shown = np.concatenate([batch.id, batch.top_ids, batch.final_ids], axis=None).tolist()
    return {**columns, "text": batch.text, "pieces": _pieces(shown, sent, decode)}


def read_tokens(run: int, data: Mapping[str, Any], extras: int) -> TokenBatch:
    """Returns the batch that `write_tokens` wrote; its `pieces` are for the caller.

    Args:
        run: The run that it is part of.
        data: The columns.
        extras: Number of the strategy's own columns.

    Raises:
        LookupError, TypeError, ValueError, OverflowError: the data is no such batch.
    """
    import numpy as np

    text = tuple(map(str, data["text"]))
    columns: dict[str, Any] = {}
    for field in TOKEN_FIELDS:
        if (field.kind == "candidates" or field.added) and data.get(field.name) is None:
            continue
        values = np.array(data[field.name], dtype=object)
        filled = np.where(values == None, field.empty, values)  # noqa: E711 — elementwise
        columns[field.name] = filled.astype(field.dtype).reshape(len(text), *field.shape(extras))
    return TokenBatch(run=run, text=text, **columns)


def write_params(values: Mapping[str, Resolved]) -> dict[str, Any]:
    """Returns a run's parameters, each with its source."""
    return {name: {"value": it.value, "source": it.source} for name, it in values.items()}
