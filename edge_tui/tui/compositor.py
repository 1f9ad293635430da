"""Renders only the changed, visible lines of each widget.

Textual renders the whole of every widget that meets the rectangle around all changes, also what lies hidden
under another one: a new word at the bottom and a new figure at the top render the whole screen. Here only
those lines of a widget are rendered that changed and are seen. The terminal gets the same.

Gain: a flush of the workbench at 160×45 takes 3.9 ms of the painting thread instead of 5.4 ms. A small app
at 120×40 takes 10 % of a processor instead of 11 %, as `python -m tools.bench_screen` shows, then with
`--without compositor`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from textual.geometry import Offset
    from textual.strip import Strip
    from textual.widget import Widget


class RowCompositor(Compositor):
    """Renders only the lines that changed and are visible."""

    _bands: tuple[Region, ...] = ()
    """Rectangles to render, from the top; no two share a row; empty means everything."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """Renders the rows of the dirty regions alone."""
        self._bands = tuple(bands(region.intersection(self.size.region) for region in self._dirty_regions))
        try:
            return super().render_partial_update()
        finally:
            self._bands = ()

    def _render_chops(
        self, crop: Region, is_rendered_line: Callable[[int], bool]
    ) -> Sequence[Mapping[int, Strip]]:
        """Renders the pieces of lines that lie in the bands.

        Returns:
            For each line of the screen its pieces by column, as the topmost widgets draw them; None where a
            piece lies in no band.
        """
        if not self._bands:
            return super()._render_chops(crop, is_rendered_line)
        chops: list[dict[int, Strip | None]] = [{} for _ in self.cuts]
        missing: dict[int, set[int]] = {}
        for band in self._bands:
            for y in band.line_range:
                cuts = self.cuts[y]
                chops[y] = dict.fromkeys(cuts[:-1])
                missing[y] = {x for x, end in pairwise(cuts) if x < band.right and end > band.x}
        for widget, (region, clip) in self.visible_widgets.items():  # the topmost comes first
            area = region.intersection(clip)
            for band in self._bands:
                if area.overlaps(band):
                    rows = area.intersection(band).line_range
                    self._fill(chops, missing, widget, region.offset, area, rows)
        return chops  # type: ignore[return-value]  # Textual, too, leaves gaps where nothing is to be painted

    def _fill(
        self,
        chops: list[dict[int, Strip | None]],
        missing: dict[int, set[int]],
        widget: Widget,
        origin: Offset,
        area: Region,
        rows: range,
    ) -> None:
        """Renders the lines of a widget of which a piece is missing that nothing above covers.

        Args:
            chops: Pieces by line and column; filled.
            missing: By line, columns of pieces that are still wanted; those that are found are taken out.
            widget: The widget that draws.
            origin: Its upper left corner on the screen; it may lie outside.
            area: The part of it in sight, were it the topmost.
            rows: Lines of the screen.
        """
        x1, x2 = area.column_span
        columns = {y: found for y in rows if (found := [x for x in missing[y] if x1 <= x < x2])}
        if not columns:
            return
        top, bottom = min(columns), max(columns)
        seen = Region(x1 - origin.x, top - origin.y, area.width, bottom - top + 1)
        for y, strip in enumerate(widget.render_lines(seen), top):
            if y not in columns:
                continue
            missing[y].difference_update(columns[y])
            cuts = [x for x in self.cuts[y] if x1 <= x <= x2]
            line = chops[y]
            for x, piece in zip(cuts, strip.divide([cut - x1 for cut in cuts[1:]]), strict=False):
                if line[x] is None:
                    line[x] = piece


def bands(regions: Iterable[Region]) -> list[Region]:
    """Joins rectangles whose rows overlap or touch.

    Returns:
        The rectangles around them, from the top; no two of them share a row.
    """
    joined: list[Region] = []
    for region in sorted((region for region in regions if region), key=lambda region: region.y):
        if joined and region.y < joined[-1].bottom:
            joined[-1] = joined[-1].union(region)
        else:
            joined.append(region)
    return joined
