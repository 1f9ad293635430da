"""A kept run as a file for others: Markdown, JSON, HTML, SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.history.formats.palette import palette

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.transcript import Transcript

FORMATS = {
    "md": "Markdown: prompt, answer and settings, to be read",
    "json": "JSON: everything, to be imported again",
    "html": "HTML: the answer in its colours, alternatives under the pointer",
    "svg": "SVG: the answer in its colours, as a picture",
}
"""What each is for, by file name extension."""


def render(
    kind: str, stored: StoredRun, transcript: Transcript, pieces: Mapping[int, str], theme: str = "dark"
) -> bytes:
    """A run as the content of a file.

    Args:
        kind: One of `FORMATS`.
        stored: The run.
        transcript: Its tokens.
        pieces: Texts of ids, for alternatives.
        theme: Whose colours an SVG has; HTML follows its reader's.
    """
    from edge_tui.history.formats import html, lossless, markdown, svg

    writers: dict[str, Callable[[], bytes]] = {
        "md": lambda: markdown.render(stored, transcript).encode(),
        "json": lambda: lossless.dump(stored, transcript, pieces),
        "html": lambda: html.render(stored, transcript, pieces).encode(),
        "svg": lambda: svg.render(stored, transcript, palette(theme)).encode(),
    }
    return writers[kind]()


def file_name(stored: StoredRun, kind: str) -> str:
    """A name that sorts by time and says whose run it is."""
    import time

    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(stored.entry.created))
    return f"edge-tui-{stamp}-{stored.entry.uid[:6]}.{kind}"
