from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region

from edge_tui.tui.app import EdgeApp
from edge_tui.tui.compositor import RowCompositor, bands

_MOVE = re.compile(r"\x1b\[(\d+);(\d+)H")


def painted(app: EdgeApp, update: ChopsUpdate | None) -> list[tuple[str, str, str]]:
    """What an update writes, as (row, column, text with its colours); moves without text change nothing."""
    assert update is not None
    parts = _MOVE.split(update.render_segments(app.console))[1:]
    cells = zip(parts[::3], parts[1::3], (text.rstrip("\n") for text in parts[2::3]), strict=True)
    return [part for part in cells if part[2]]


def somewhere(rng: random.Random, width: int, height: int) -> set[Region]:
    """Rectangles that may lie over each other and beyond the edge."""
    return {
        Region(
            rng.randrange(-5, width), rng.randrange(-3, height), rng.randrange(1, width), rng.randrange(1, 9)
        )
        for _ in range(rng.randrange(1, 5))
    }


@pytest.mark.parametrize(("strategy", "size"), [("2", (80, 24)), ("4", (160, 45))])
async def test_paints_the_same_as_textual(
    picture: Callable[..., EdgeApp], size: tuple[int, int], strategy: str
) -> None:
    app, rng = picture(), random.Random(sum(size))
    async with app.run_test(size=size) as pilot:
        await pilot.press("escape", strategy, "ctrl+j")
        await pilot.pause(0.3)
        compositor = app.workbench._compositor  # noqa: SLF001
        assert isinstance(compositor, RowCompositor)
        for _ in range(40):
            dirty = {each.intersection(compositor.size.region) for each in somewhere(rng, *size)}
            compositor._dirty_regions = {each for each in dirty if each}  # noqa: SLF001
            if not compositor._dirty_regions:  # noqa: SLF001
                continue
            asked = compositor._dirty_regions.copy()  # noqa: SLF001
            ours = compositor.render_partial_update()
            compositor._dirty_regions = asked  # noqa: SLF001
            assert painted(app, ours) == painted(app, Compositor.render_partial_update(compositor))


async def test_renders_only_rows_that_changed(
    picture: Callable[..., EdgeApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = picture()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        work = app.workbench
        asked: list[Region] = []
        for widget in (work.pane, work.parameters.table, work.view.output):
            original = widget.render_lines
            monkeypatch.setattr(
                widget, "render_lines", lambda crop, original=original: asked.append(crop) or original(crop)
            )
        header, pane = work.view.header.region, work.pane.region
        work._compositor._dirty_regions = {header, Region(pane.x, pane.y + 3, pane.width, 2)}  # noqa: SLF001
        work._compositor.render_partial_update()  # noqa: SLF001
        # The pane hides the container that it lies in; the table beside it has not changed.
        assert asked == [Region(0, 3, pane.width, 2)]


def test_bands_share_no_row() -> None:
    regions = [Region(5, 4, 10, 2), Region(0, 0, 3, 1), Region(12, 5, 9, 3), Region(0, 8, 4, 1), Region()]
    assert bands(regions) == [Region(0, 0, 3, 1), Region(5, 4, 16, 4), Region(0, 8, 4, 1)]
