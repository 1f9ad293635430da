"""Resolves the user's keys for actions, and refuses those that clash.

Keys are those of Textual ("ctrl+j", "f5", "question_mark"), several separated by commas; characters ("?")
and what the help screen writes ("^j") are understood as well. A key that something else has, where both
would be heard, is refused with the name of the other.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.keys import _character_to_key

from edge_tui.tui.actions import INNER, SCOPES, bindings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_tui.tui.actions import Scope

_KEY = re.compile(r"((ctrl|shift|alt|super|hyper|meta)\+)*([a-zA-Z0-9]|[a-z][a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class BindingInfo:
    """Describes one remappable binding.

    Attributes:
        id: The keymap's: "main.run", "main.digit.3".
        name: Its name in the configuration: the id, without its scope where it is the first of that name.
        scope: Part of the app that hears it.
        label: A word or two.
        help: One sentence.
        keys: Built in, separated by commas.
    """

    id: str
    name: str
    scope: Scope
    label: str
    help: str
    keys: str


@dataclass(frozen=True, slots=True)
class Keymap:
    """Holds the resolved keys of the user.

    Attributes:
        keys: Keys by binding id, those that were changed.
        notices: A sentence for each that could not be.
    """

    keys: Mapping[str, str]
    notices: tuple[str, ...] = ()


def catalog() -> list[BindingInfo]:
    """Lists every binding that can be remapped, in the order of the help screen."""
    infos: dict[str, BindingInfo] = {}
    for scope in SCOPES:
        for binding in bindings(scope):
            if id := binding.id:
                short = id.partition(".")[2]
                name = id if short in infos else short
                infos[name] = BindingInfo(id, name, scope, binding.description, binding.tooltip, binding.key)
    return list(infos.values())


def resolve(requested: Mapping[str, str], infos: Iterable[BindingInfo]) -> Keymap:
    """Resolves the user's keys, and refuses those that clash.

    Args:
        requested: Keys by action: a `BindingInfo.name` or `.id`; "digit" takes nine keys.
        infos: The bindings.
    """
    by_id = {each.id: each for each in infos}
    ids = {each.name: each.id for each in by_id.values()} | {id: id for id in by_id}
    keys_by_id: dict[str, str] = {}
    notices: list[str] = []
    for name, text in requested.items():
        keys, wrong = parse_keys(text)
        if name in ("digit", "main.digit"):
            if wrong or len(keys) != 9:
                notices.append(f"keys.{name}: nine keys separated by commas were expected.")
            else:
                keys_by_id |= {f"main.digit.{number}": key for number, key in enumerate(keys, 1)}
        elif name not in ids:
            close = difflib.get_close_matches(name, ids, n=1, cutoff=0.6)
            hint = f'; did you mean "{close[0]}"?' if close else "; ? lists them."
            notices.append(f"keys.{name}: there is no such action{hint}")
        elif wrong:
            notices.append(f"keys.{name}: {wrong!r} is no key; write one like ctrl+r, f5 or ?.")
        else:
            keys_by_id[ids[name]] = ",".join(keys)
    # A refused remap falls back to its default key, which may clash too; repeat until no clash is left.
    while clash := _clash(by_id, keys_by_id):
        loser, key, other = clash
        del keys_by_id[loser.id]
        notices.append(
            f"keys.{loser.name}: {key} is the key of {other.name} ({scope_title(other)}); give that another "
            f"one first. {loser.name} keeps {loser.keys.replace(',', ' ')}."
        )
    return Keymap(keys_by_id, tuple(notices))


def conflict(id: str, key: str, keys: Mapping[str, str], infos: Iterable[BindingInfo]) -> BindingInfo | None:
    """Finds another binding of a key in the scopes of an action; None if the key is free."""
    by_id = {each.id: each for each in infos}
    for other in by_id.values():
        if other.id != id and _overlap(by_id[id].scope, other.scope):
            theirs = keys.get(other.id, other.keys).split(",")
            if key in theirs:
                return other
    return None


def scope_title(info: BindingInfo) -> str:
    """Names the scope of a binding in a word or two."""
    return SCOPES[info.scope].partition(" (")[0]


def _overlap(one: Scope, other: Scope) -> bool:
    """Tells whether both scopes can hear the same key."""
    if one == other or "app" in (one, other):
        return True
    return other in INNER.get(one, ()) or one in INNER.get(other, ())


def _clash(
    by_id: Mapping[str, BindingInfo], keys_by_id: Mapping[str, str]
) -> tuple[BindingInfo, str, BindingInfo] | None:
    for id, keys in keys_by_id.items():
        for key in keys.split(","):
            if other := conflict(id, key, keys_by_id, by_id.values()):
                return by_id[id], key, other
    return None


def parse_keys(text: str) -> tuple[list[str], str]:
    """Reads keys from a text, in Textual's names; also returns the first part that is no key."""
    keys = []
    for part in text.split(",") if text != "," else [","]:
        key = part.strip().replace("^", "ctrl+") if len(part.strip()) > 1 else part.strip()
        modifiers, plus, last = key.rpartition("+")
        if len(last) == 1 and not last.isalnum():
            key = modifiers + plus + _character_to_key(last)
        if not _KEY.fullmatch(key):
            return [], part.strip()
        keys.append(key)
    return keys, ""
