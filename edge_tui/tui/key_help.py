"""Lists the keys of all actions, for the help screen and docs/keys.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.tui.actions import ACTIONS, SCOPES, key_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.tui.actions import Scope


@dataclass(frozen=True, slots=True)
class KeyHelp:
    """Holds one line of the help screen."""

    keys: str
    label: str
    help: str


def key_help(own: Mapping[str, str] | None = None, first: Sequence[Scope] = ()) -> dict[str, list[KeyHelp]]:
    """Lists the lines of help under their headings.

    Args:
        own: The user's keys by binding id, where they are not the built-in ones.
        first: Scopes to begin with.
    """
    own = own or {}
    return {
        SCOPES[scope]: [
            KeyHelp(_own_text(f"{scope}.{a.id}", own) or a.key_text, a.label, a.help)
            for a in ACTIONS
            if a.scope == scope
        ]
        for scope in dict.fromkeys((*first, *SCOPES))
    }


def _own_text(id: str, own: Mapping[str, str]) -> str:
    """Writes the user's keys of a binding, the nine of the digits together; "" for the built-in ones."""
    if id == "main.digit":
        return " ".join(key_text(own[f"{id}.{n}"]) for n in range(1, 10) if f"{id}.{n}" in own)
    return key_text(own[id]) if id in own else ""


def key_table() -> str:
    """Writes the keys as a Markdown table, for docs/keys.md."""
    rows = ["| key | action | |", "|---|---|---|"]
    for heading, lines in key_help().items():
        rows.append(f"| **{heading}** | | |")
        rows.extend(f"| `{line.keys}` | {line.label} | {line.help} |" for line in lines)
    return "\n".join(rows)
