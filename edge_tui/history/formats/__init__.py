"""Writes a stored run as a file for others: Markdown, JSON, HTML, SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.history.formats.palette import palette

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript

FORMATS = {
    "md": "Markdown: prompt, answer and settings, to be read",
    "json": "JSON: everything, to be imported again",
    "html": "HTML: the answer in its colours, each token's record on click",
    "svg": "SVG: the answer in its colours, as a picture",
}
"""Purpose of each format, by file name extension."""


def render(
    kind: str,
    stored: StoredRun,
    transcript: Transcript,
    token_strings: Mapping[int, str],
    theme: str = "dark",
    explanations: Mapping[int, Explanation] | None = None,
) -> bytes:
    """Writes a run as the content of a file.

    Args:
        kind: One of `FORMATS`.
        stored: The run.
        transcript: Its tokens.
        token_strings: Texts of ids, for alternatives.
        theme: Colours of an SVG; HTML follows its reader's.
        explanations: By position on the transcript's path; HTML has their ladders.
    """
    from edge_tui.history.formats import html, lossless, markdown, svg

    if kind == "json":
        return lossless.dump(stored, transcript, token_strings)
    if kind == "svg":
        return svg.render(stored, transcript, palette(theme)).encode()
    written = (
        markdown.render(stored, transcript)
        if kind == "md"
        else html.render(stored, transcript, token_strings, explanations)
    )
    return written.encode()


def file_name(stored: StoredRun, kind: str) -> str:
    """Makes a file name that sorts by time and has the run's uid."""
    import time

    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(stored.entry.created))
    return f"edge-tui-{stamp}-{stored.entry.uid[:6]}.{kind}"
