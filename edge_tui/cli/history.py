"""`edge-tui history`: lists, searches, shows, exports, imports and deletes runs."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.cli.messages import fail, print_line
from edge_tui.errors import UsageError
from edge_tui.history import formats
from edge_tui.history.compare import compare, side_of
from edge_tui.history.formats import facts, lossless
from edge_tui.history.reproduce import reproduction
from edge_tui.history.restore import recover, transcript_of
from edge_tui.history.salvage import open_or_rebuild
from edge_tui.history.schema import HistoryError, default_path
from edge_tui.transcript.parting import parting_at
from edge_tui.util.json_text import json_line
from edge_tui.util.sanitise import one_line, sanitise
from edge_tui.util.user_file import error_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import Entry, StoredRun
    from edge_tui.history.store import Store
    from edge_tui.transcript.transcript import Transcript


def run(flags: Mapping[str, Any]) -> int:
    """Runs `edge-tui history …`; returns the exit status.

    Raises:
        HistoryError: the history or the named run cannot be used.
    """
    try:
        with closing(open_or_rebuild(default_path())) as store:
            if store.problem:
                fail(store.problem)
            recover(store, time.time())
            return _COMMANDS[flags["what"] or "list"](store, flags)
    except sqlite3.Error as error:
        return fail(f"the history {default_path()} cannot be used ({error}).")
    except OSError as error:
        if error.filename is None:  # one of the streams, not a file that was named
            raise
        return fail(f"{error.filename} cannot be used: {error_reason(error)}.")


def _list(store: Store, flags: Mapping[str, Any]) -> int:
    entries = store.runs()
    if "query" in flags:
        found = store.search(" ".join(flags["query"]))
        entries = [entry for entry in entries if entry.id in found]
    for entry in entries[: flags["most"] or None]:
        print(json_line(asdict(entry)) if flags["json"] else _line(entry))
    if not entries and not flags["json"]:
        print("No run holds that." if "query" in flags else "No run has been kept yet.", file=sys.stderr)
    return 0


def _line(entry: Entry) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
    state = "" if entry.state == "finished" else f" {entry.state}"
    columns = f"{entry.id:>6}  {entry.uid[:8]}  {stamp}  {entry.strategy:<12} {entry.tokens:>7,} tok{state}"
    return one_line(f"{columns}  {entry.model}  {entry.prompt[:60]}")


def _show(store: Store, flags: Mapping[str, Any]) -> int:
    stored, transcript = _run(store, flags["run"])
    for name, value in facts.facts(stored):
        print_line(f"{name:<18} {value}")
    print_line(f"{'reproduce':<18} {reproduction(stored).line}")
    for turn in facts.turns(stored):
        print(f"\n── {facts.SPEAKERS[turn.role]}\n{_safe(turn.content)}")
    print(f"\n── answer\n{_safe(transcript.text)}")
    return 0


def _why(store: Store, flags: Mapping[str, Any]) -> int:
    from edge_tui.cli.history_why import why

    stored, transcript = _run(store, flags["run"])
    return why(stored, transcript, store.token_strings(stored.model), flags)


def _diff(store: Store, flags: Mapping[str, Any]) -> int:
    sides = side_of(*_run(store, flags["run"])), side_of(*_run(store, flags["other"]))
    comparison = compare(*sides)
    for each in comparison.settings:
        values = [one_line(value)[:70] or "–" for value in (each.first, each.second)]
        print(f"{each.name:<18} {values[0]}  →  {values[1]}")
    print(comparison.verdict)
    if comparison.diverges:
        at = comparison.common_length
        print_line(parting_at(*sides, at).sentence)
        print(f"\n… {_safe(''.join(sides[0].transcript.texts(max(at - 12, 0), at)))}")
        for mark, side in zip("<>", sides, strict=True):
            print(f"{mark} {_safe(''.join(side.transcript.texts(at, at + 12)))}")
    return int(comparison.diverges)


def _export(store: Store, flags: Mapping[str, Any]) -> int:
    stored, transcript = _run(store, flags["run"])
    output = flags["output"]
    kind = flags["format"] or (Path(output).suffix[1:] if output else "")
    kind = kind if kind in formats.FORMATS else "md"
    strings = store.token_strings(stored.model)
    reasons = _reasons(stored, transcript, strings, flags) if kind == "html" and flags["why"] else {}
    data = formats.render(kind, stored, transcript, strings, flags["theme"], reasons)
    if output:
        Path(output).write_bytes(data)
    elif sys.stdout.isatty():
        print(sanitise(data.decode()))
    else:
        sys.stdout.buffer.write(data)
    return 0


def _reasons(
    stored: StoredRun, transcript: Transcript, strings: Mapping[int, str], flags: Mapping[str, Any]
) -> dict[int, Explanation]:
    """Explains the tokens that an export is to have the ladders of, as far as that can be computed."""
    from edge_tui.cli.history_why import explanations
    from edge_tui.cli.why import read_tokens

    if (tokens := read_tokens(flags["why"])) is None:
        raise UsageError(f"--why takes a token's number, last or all, not {flags['why']!r}.")
    found = dict(explanations(stored, transcript, strings, flags, tokens))
    for note in dict.fromkeys(each.note for each in found.values() if each.exactness == "record"):
        fail(note)
    return {index: each for index, each in found.items() if each.exactness != "record"}


def _import(store: Store, flags: Mapping[str, Any]) -> int:
    status = 0
    for name in flags["files"]:
        try:
            stored = lossless.load(Path(name).read_bytes())
            entry = store.import_run(stored, transcript_of(stored).text)
        except HistoryError as error:
            status = fail(f"{name}: {error}")
        else:
            print_line(f"{name} is run {entry.id} now.")
    return status


def _delete(store: Store, flags: Mapping[str, Any]) -> int:
    entries = [_entry(store, name) for name in flags["runs"]]
    if not flags["yes"]:
        if not sys.stdin.isatty():
            return fail("deleting asks first, but standard input is no terminal; add --yes.")
        for entry in entries:
            print(_line(entry))
        if input(f"Delete {len(entries)} for good? [y/N] ").strip().lower() != "y":
            return 1
    for entry in entries:
        store.delete(entry.id)
    return 0


_COMMANDS: dict[str, Callable[[Store, Mapping[str, Any]], int]] = {
    "list": _list,
    "search": _list,
    "show": _show,
    "why": _why,
    "diff": _diff,
    "export": _export,
    "import": _import,
    "delete": _delete,
}


def _run(store: Store, name: str) -> tuple[StoredRun, Transcript]:
    stored = store.load(_entry(store, name).id)
    return stored, transcript_of(stored)


def _entry(store: Store, name: str) -> Entry:
    """Finds a run by number, by the beginning of its name, or as `last`."""
    if name == "last":
        if entries := store.runs():
            return entries[0]
        raise HistoryError("No run has been kept yet.")
    if name.isdecimal() and len(name) < 8:
        return store.entry(int(name))
    if entry := store.find(name):
        return entry
    raise HistoryError(
        f"{name!r} is no run, or the beginning of several; `edge-tui history list` shows them."
    )


def _safe(text: str) -> str:
    return sanitise(text) if sys.stdout.isatty() else text
