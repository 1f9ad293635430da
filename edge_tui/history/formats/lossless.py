"""Writes a run as JSON that loses nothing, and reads it back.

Numbers of tokens are written with as many digits as single precision needs; NaN and infinities, which JSON
does not have, as words.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import Finished, Loaded, ParamChanged, Started, TokenBatch
from edge_tui.engine.port import Request
from edge_tui.engine.token_fields import TOP, UNKNOWN, token_fields
from edge_tui.history.columns import token_ids
from edge_tui.history.reproduce import reproduction
from edge_tui.history.runs import Entry, StoredRun
from edge_tui.history.schema import HistoryError
from edge_tui.util.dataclass_json import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_tui.transcript.transcript import Transcript

FORMAT = "edge-tui run"
VERSION = 1
_CHANGE = ("index", "name", "value", "version")
_NUMBERS = (*token_fields("position", "number", dtype="i4"), *token_fields("number", dtype="f4"))
_FIELDS = (*_NUMBERS, *token_fields("alternatives", "extras"))
_ALTERNATIVES = {"top": ("top_ids", "top_logp"), "final": ("final_ids", "final_top_logp")}


def dump(stored: StoredRun, transcript: Transcript, token_strings: Mapping[int, str]) -> bytes:
    """Writes the file's content. `text` and `reproduce` are for readers; importing ignores them.

    Args:
        stored: The run.
        transcript: Its tokens.
        token_strings: Texts of ids; those of its tokens and alternatives are written.
    """
    again = reproduction(stored)
    batches = stored.batches if stored.prefix is None else (stored.prefix, *stored.batches)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "text": transcript.text,
        "reproduce": {"line": again.line, "arguments": again.arguments},
        "run": asdict(stored.entry),
        "request": asdict(stored.request),
        "started": asdict(stored.started) if stored.started else None,
        "finished": asdict(stored.finished) if stored.finished else None,
        "models": {role: asdict(model) for role, model in stored.models.items()},
        "versions": dict(stored.versions),
        "message": stored.message,
        "changes": [{name: getattr(change, name) for name in _CHANGE} for change in stored.changes],
        "pieces": {str(each): token_strings[each] for each in token_ids(batches) if each in token_strings},
        "kept": _tokens(stored.prefix) if stored.prefix is not None else None,
    }
    tokens = [token for batch in stored.batches for token in _tokens(batch)]
    try:
        return _json(data, tokens, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair has no place in UTF-8.
        return _json(data, tokens, ensure_ascii=True).encode()


def _json(data: dict[str, Any], tokens: list[dict[str, Any]], ensure_ascii: bool) -> str:
    """Writes one line for each token, so that other tools find them."""

    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False)

    head = [f"{line(name)}: {line(_strict(value))}" for name, value in data.items()]
    head.append('"tokens": [\n' + ",\n".join(map(line, tokens)) + "\n]")
    return "{\n" + ",\n".join(head) + "\n}\n"


def load(data: bytes) -> StoredRun:
    """Reads a run that `dump` wrote; its `entry.id` means nothing here.

    Raises:
        HistoryError: it is something else.
    """
    try:
        found = json.loads(data, object_hook=_loose)
        if found["format"] != FORMAT or found["version"] != VERSION:
            raise HistoryError(
                f"It is {found['format']!r} of version {found['version']!r}, but this edge-tui reads"
                f" {FORMAT!r} of version {VERSION}."
            )
        entry = build(Entry, {"id": 0} | found["run"])
        if not entry.uid.isalnum() or len(entry.uid) > 32 or not isfinite(entry.created):
            raise ValueError(entry.uid)
        started = build(Started, found["started"]) if found["started"] else None
        width = len(started.columns) if started is not None else 0
        tokens = _batch(found["tokens"], width)
        return StoredRun(
            entry=entry,
            request=build(Request, found["request"]),
            started=started,
            finished=build(Finished, found["finished"]) if found["finished"] else None,
            models={str(role): build(Loaded, model) for role, model in found["models"].items()},
            versions={str(name): str(number) for name, number in found["versions"].items()},
            changes=tuple(build(ParamChanged, {"run": 0} | change) for change in found["changes"]),
            prefix=_batch(found["kept"], width) if found["kept"] else None,
            batches=(tokens,) if len(tokens) else (),
            message=str(found["message"]),
            token_strings=_token_strings(found.get("pieces", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise HistoryError("It is no run that edge-tui exported.") from error


def _token_strings(data: dict[str, Any]) -> dict[int, str]:
    found = {int(number): str(text) for number, text in data.items()}
    if not all(0 <= number < 2**31 for number in found):
        raise ValueError("an id is out of range")
    return found


def _tokens(batch: TokenBatch) -> list[dict[str, Any]]:
    """Turns each record into an object."""
    listed: dict[str, list[Any]] = {}
    for each in _FIELDS:
        column = getattr(batch, each.name)
        listed[each.name] = column.tolist() if each.dtype == "i4" else _shortest(column)
    tokens = []
    for i, text in enumerate(batch.text):
        token: dict[str, Any] = {"text": text} | {each.name: listed[each.name][i] for each in _NUMBERS}
        for name, (ids, logps) in _ALTERNATIVES.items():
            pairs = list(zip(listed[ids][i], listed[logps][i], strict=True))
            while pairs and pairs[-1] == (-1, "-inf"):
                pairs.pop()
            token[name] = pairs
        token["removing_stage"] = listed["removing_stage"][i][: len(token["top"])]
        tokens.append(token | {"extras": listed["extras"][i]})
        if batch.candidates is not None:
            tokens[-1]["candidates"] = _shortest(batch.candidates[i].reshape(-1))
    return tokens


def _shortest(column: NDArray[Any]) -> Any:
    """Rounds floats to the digits that they need; writes words for NaN and infinities."""
    if column.ndim > 1:
        flat = _shortest(column.reshape(-1))
        width = column.shape[1]
        return [flat[i * width : (i + 1) * width] for i in range(len(column))]
    values = [(float(written), written) for written in column.astype("U32").tolist()]
    return [value if isfinite(value) else written for value, written in values]


def _batch(tokens: list[dict[str, Any]], width: int) -> TokenBatch:
    """Builds the batch of a run's token objects."""
    import numpy as np

    n = len(tokens)
    columns: dict[str, Any] = {}
    for each in _NUMBERS:
        # A float may be a word, an integer may not.
        found = [token.get(each.name, each.empty) if each.added else token[each.name] for token in tokens]
        values = [float(value) if each.dtype == "f4" else value for value in found]
        columns[each.name] = np.array(values, each.dtype).reshape(n)
    for name, (ids, logps) in _ALTERNATIVES.items():
        columns[ids] = np.full((n, TOP), -1, np.int32)
        columns[logps] = np.full((n, TOP), -np.inf, np.float32)
        for i, token in enumerate(tokens):
            for j, (each, logp) in enumerate(token[name][:TOP]):
                columns[ids][i, j], columns[logps][i, j] = each, float(logp)
    stages = np.full((n, TOP), UNKNOWN, np.int32)
    for i, token in enumerate(tokens):
        listed = token.get("removing_stage", [])[:TOP]
        stages[i, : len(listed)] = listed
    columns["removing_stage"] = stages
    extras = [[float(value) for value in token["extras"]] for token in tokens]
    columns["extras"] = np.array(extras, np.float32).reshape(n, width)
    if n and all("candidates" in token for token in tokens):
        candidates = [[float(value) for value in token["candidates"]] for token in tokens]
        columns["candidates"] = np.array(candidates, np.float32).reshape(n, width, 2, TOP)
    return TokenBatch(run=0, text=tuple(str(token["text"]) for token in tokens), **columns)


def _strict(value: Any) -> Any:
    """Wraps NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return {"float": str(value)} if isinstance(value, float) and not isfinite(value) else value


def _loose(value: dict[str, Any]) -> Any:
    return float(value["float"]) if value.keys() == {"float"} else value
