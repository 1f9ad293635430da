"""Draws a run's answer as a picture: monospaced lines, every token in its colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from edge_tui.history.formats.facts import ending, settings_line, turns
from edge_tui.history.reproduce import reproduction
from edge_tui.transcript.colour_buckets import LEGENDS, buckets
from edge_tui.transcript.wrapping import TAB, TokenText, Wrap
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.history.formats.palette import Palette
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript

COLUMNS = 88
"""Cells of a line."""
_MOST_LINES = 12
"""Lines of the command that makes the run again; the description has all of it."""
_CELL, _LINE, _MARGIN = 8.4, 20, 28
_FONT = "14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def render(stored: StoredRun, transcript: Transcript, colours: Palette) -> str:
    """Draws the picture, as high as the prompt's last turn and the answer need."""
    again = reproduction(stored).line
    lines = [*_prompt(stored, colours), [], *_answer(transcript, colours), [], _caption(stored, colours)]
    lines += [*_muted(settings_line(stored), colours), *_muted(again, colours)]
    width = 2 * _MARGIN + COLUMNS * _CELL
    height = 2 * _MARGIN + len(lines) * _LINE
    body = "\n".join(_line(number, line) for number, line in enumerate(lines) if line)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}"'
        f' height="{height}" style="font: {_FONT}">\n<desc>{escape(sanitise(again))}</desc>\n'
        f'<rect width="100%" height="100%" rx="8" fill="{colours.background}"/>\n{body}\n</svg>\n'
    )


Run = tuple[float, str, str]
"""First cell, text and colour of a piece of text."""


def _prompt(stored: StoredRun, colours: Palette) -> Iterator[list[Run]]:
    for number, line in enumerate(_wrapped(turns(stored)[-1].content, COLUMNS - 2)):
        lead = "› " if not number else "  "
        yield [(0, lead, colours.accent), (2, line, colours.foreground)]


def _answer(transcript: Transcript, colours: Palette) -> Iterator[list[Run]]:
    text = TokenText()
    text.extend(transcript.texts())
    wrap = Wrap(COLUMNS)
    wrap.feed(text.display)
    steps = buckets(transcript, "probability", False, 0)
    for line in range(len(wrap)):
        runs: list[Run] = []
        at = 0
        for piece in wrap.pieces(text.display, line):
            runs.append((at, piece.text.replace("\t", " " * TAB), colours.ladder[steps[piece.token]]))
            at += piece.cells
        yield runs


def _caption(stored: StoredRun, colours: Palette) -> list[Run]:
    caption = f"{stored.model} · {stored.entry.strategy} · {stored.entry.tokens:,} tokens · {ending(stored)}"
    steps = LEGENDS["probability"][1]
    at = COLUMNS - sum(len(step) + 1 for step in steps)
    runs: list[Run] = [(0, clip(sanitise(caption, keep_newlines=False), at - 2), colours.muted)]
    for step, colour in zip(steps, colours.ladder, strict=True):
        runs.append((at, step, colour))
        at += len(step) + 1
    return runs


def _muted(text: str, colours: Palette) -> Iterator[list[Run]]:
    """Writes a text in a few muted lines, cut where it is longer."""
    lines = list(_wrapped(text, COLUMNS))
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = ["…"]
    for line in lines:
        yield [(0, line, colours.muted)]


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Breaks a text into safe lines of so many cells."""
    tokens = TokenText()
    tokens.extend([text])
    wrap = Wrap(width)
    wrap.feed(tokens.display)
    for line in range(len(wrap)):
        pieces = wrap.pieces(tokens.display, line)
        yield "".join(piece.text for piece in pieces).replace("\t", " " * TAB)


def _line(number: int, runs: list[Run]) -> str:
    y = _MARGIN + number * _LINE + 14
    spans = "".join(
        f'<tspan x="{_MARGIN + at * _CELL:.1f}" fill="{colour}">{escape(text)}</tspan>'
        for at, text, colour in runs
        if text.strip()
    )
    return f'<text y="{y}" xml:space="preserve">{spans}</text>'
