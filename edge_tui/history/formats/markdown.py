"""Writes a run as Markdown, to be read or pasted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edge_tui.history.formats.facts import SPEAKERS, facts, turns
from edge_tui.history.reproduce import reproduction
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript


def render(stored: StoredRun, transcript: Transcript) -> str:
    """Writes the file's text. Prompts and answers stand in fences that they cannot close."""
    parts = ["# edge-tui run", ""]
    parts += ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts(stored))]
    for turn in turns(stored):
        parts += ["", f"## {SPEAKERS[turn.role].capitalize()}", "", _fenced(turn.content)]
    parts += ["", f"## {SPEAKERS['assistant'].capitalize()}", "", _fenced(transcript.text)]
    parts += ["", "## Reproduce", "", _fenced(reproduction(stored).line, "sh"), ""]
    return "\n".join(parts)


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", sanitise(text, keep_newlines=False))


def _fenced(text: str, language: str = "text") -> str:
    text = sanitise(text, tab="\t")
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"
