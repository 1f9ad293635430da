"""Writes one line of the list of models: a model that is here, one of the hub, a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.tui.screens.filter_list import Item
from edge_tui.tui.screens.model_facts import share
from edge_tui.tui.widgets.line_panel import pad
from edge_tui.util.formatting import clip, clip_path, compact_count, size
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.hub.listing import Listing
    from edge_tui.hub.remote import Progress

COLUMNS = 8 + 9 + 10 + 13
"""Cells behind the name: weights, bytes, format, tier or roles."""


def model_line(listing: Listing, roles: Sequence[str], room: int, name: str = "") -> Item:
    """Makes the line of a model that is here.

    Args:
        listing: The model.
        roles: Those that it is in memory for.
        room: Cells of its name.
        name: Shown in place of the listing's, and found by it alone.
    """
    title = one_line(name or listing.name)
    shown = pad(clip_path(title, room), room + 1)
    if listing.refusal:
        reason = one_line(listing.refusal).removeprefix(f"{one_line(listing.name)} ").removeprefix("is ")
        parts = [(f"  {shown}", "$text-muted"), (clip(reason, COLUMNS), "$text-muted italic")]
    else:
        parts = [
            ("● " if roles else "  ", "$success"),
            (shown, "bold" if roles else ""),
            (f"{compact_count(listing.parameters):>7} {size(listing.bytes):>8} ", ""),
            (f"{one_line(listing.dtype):>9} ", "$text-muted"),
            (f" {', '.join(roles) or listing.tier}", "$success" if roles else "$text-muted"),
        ]
    search = name or f"{title} {listing.architecture} {listing.origin}"
    return Item(listing.name, search, Content.assemble(*parts))


def hub_line(name: str, progress: Progress | None, room: int) -> Item:
    """Makes the line of a model that the hub offers, or that is being downloaded."""
    state, style = "on the hub", "$text-muted"
    if progress is not None and progress.active:
        fetched = f"{share(progress):>4.0%} fetched"
        state, style = (fetched, "$warning") if progress.total else ("…", "")
    lead = (f"⇣ {pad(clip(name, room), room + 1)}", "$foreground")
    return Item(name, name, Content.assemble(lead, (clip(state, COLUMNS), style)))


def folder_line(name: str, shown: str) -> Item:
    """Makes the line of a folder that can be gone into."""
    return Item(name, shown, Content.assemble(("  ", ""), (one_line(shown), "$primary")))
