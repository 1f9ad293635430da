"""Reads the screen as a terminal would show it, and waits until it rests."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual._context import active_app
from textual.constants import MAX_FPS
from textual.widgets import Input, OptionList, TextArea

from edge_tui.tui.pacing import Pacer
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App
    from textual.pilot import Pilot
    from textual.screen import Screen
    from textual.strip import Strip

LONGEST_DELAY = 1.0
"""Seconds that a change may be put off and still be waited for."""
LEAST_CONTRAST = 1.4
"""Least contrast of a text that somebody is to read, as WCAG counts it; what is disabled has less than 3."""


SAID: list[str] = []
"""The messages of a test's apps, in order; `conftest` records them."""


def was_said(words: str) -> bool:
    """Tells whether a message had these words."""
    return any(words in message for message in SAID)


def strips(app: App[Any]) -> list[Strip]:
    """The lines of the screen. Textual has no public name for them."""
    return app.screen._compositor.render_strips()  # noqa: SLF001


def lines(app: App[Any]) -> list[str]:
    """The text of each line of the screen."""
    return [strip.text for strip in strips(app)]


def notices(app: App[Any]) -> list[str]:
    """The texts of the notifications on the screen. Textual has no public name for them."""
    return [each.message for each in app._notifications]  # noqa: SLF001


async def idle(*_: float) -> None:
    """Waits until all messages are handled, the last key has taken effect, and the screen is painted.

    What remains are other timers, and threads: wait for what those do with `until`.
    """
    loop: Any = asyncio.get_running_loop()
    end = loop.time() + LONGEST_DELAY
    await handled()
    while _pending(active_app.get()) and loop.time() < end:
        await asyncio.sleep(1 / (4 * MAX_FPS))
        await handled()


async def handled(*_: object) -> bool:
    """Waits until the event loop has nothing to run: all messages are handled, as no handler waits for more.

    Textual asks each widget of the screen, which is half of what a key costs.
    """
    loop: Any = asyncio.get_running_loop()
    await asyncio.sleep(0)
    while loop._ready:  # noqa: SLF001 - asyncio has no public name for what it is about to run
        await asyncio.sleep(0)
    return True


def _pending(app: Any) -> bool:
    """Tells whether a key waits, or a refresh. Textual has no public name for the timer of the refreshes."""
    if not app.screen_stack:
        return False
    keys = getattr(app, "key_queue", None)
    return app.screen._update_timer._active.is_set() or bool(keys and keys.busy)  # noqa: SLF001


async def until(pilot: Pilot[Any], look: Callable[[], object], what: str = "it") -> None:
    """Waits for something to hold; the deadline only ends a test that hangs."""
    end = time.monotonic() + min(60.0, LONGEST)
    while not look():
        assert time.monotonic() < end, f"{what} never came:\n" + "\n".join(lines(pilot.app))
        await pilot.pause(0.025)


def is_open(app: App[Any], screen: type[Screen[Any]]) -> bool:
    """Tells whether the top screen is of a class, and all of its widgets can be queried.

    A screen is the app's top one from when it is pushed, and composed some messages later.
    """
    return isinstance(app.screen, screen) and app.screen.is_mounted


async def settle(pilot: Any, calm: bool = True) -> None:
    """Waits until two frames a tick apart are the same, and at neither was anything under way.

    What ends just before a frame may show on the next one only. No cursor blinks where it is to be `calm`.
    """
    app = pilot.app
    for field in (*app.screen.query(Input), *app.screen.query(TextArea)) if calm else ():
        field.cursor_blink = False
    before: list[Strip] | None = None
    end = time.monotonic() + min(60.0, LONGEST)
    while time.monotonic() < end:
        await pilot.pause(Pacer.TICK)
        now = None if app.session.unpainted or due(app) else strips(app)
        if now is not None and now == before:
            return
        before = now
    raise AssertionError(f"the screen does not come to rest, {due(app)}:\n" + "\n".join(lines(app)))


def due(app: Any) -> list[str]:
    """Names what will change the screen although nobody touches it: delays, threads, questions.

    What waits longer than `LONGEST_DELAY` (a notice that goes by itself) belongs to the picture.
    """
    nodes = [app, *(node for screen in app.screen_stack for node in screen.walk_children(with_self=True))]
    delays = [
        f"{node}: {timer.name}"
        for node in nodes
        for timer in node._timers  # noqa: SLF001 - Textual has no public name for a node's timers
        if timer._repeat == 0 and timer._interval <= LONGEST_DELAY  # noqa: SLF001
        if timer._task is not None and not timer._task.done()  # noqa: SLF001
    ]
    workers = [str(worker) for worker in app.workers if not worker.is_finished]
    return delays + workers + ["a question"] * app.session.questions.pending


def assert_readable(app: App[Any]) -> None:
    """Holds the screen to what every size and look must show.

    Lines are as wide as the screen, and what is written differs from what it stands on. A dialog lies within
    the screen, with all of its title and of its keys, and its list shows the line under the cursor.
    """
    width = app.size.width
    text = lines(app)
    assert len(text) == app.size.height, f"{len(text)} lines"
    assert {cell_len(line) for line in text} == {width}, "a line is not as wide as the screen"
    for strip in strips(app) if not app.screen.is_modal else ():
        assert_legible(strip)
    for dialog in app.screen.query(".dialog"):
        area = dialog.region
        assert app.screen.region.contains_region(area), f"{area} is beyond the screen"
        for strip in strips(app)[area.y : area.bottom]:
            assert_legible(strip.crop(area.x, area.right))  # what lies behind a dialog is dimmed
        for edge, at in ((dialog.border_title, area.y), (dialog.border_subtitle, area.bottom - 1)):
            assert str(edge or "") in text[at], f"{edge!s} is cut: {text[at]}"
    for options in app.screen.query(OptionList):
        if options.highlighted is not None:
            chosen = str(options.get_option_at_index(options.highlighted).prompt)[:20]
            region = options.region
            assert any(chosen.strip() in line for line in text[region.y : region.bottom]), chosen


def assert_legible(strip: Strip) -> None:
    """Holds each word of a line to the least contrast."""
    for segment in strip:
        if any(map(str.isalnum, segment.text)):
            assert _contrast(segment.style) >= LEAST_CONTRAST, segment


def _contrast(style: Any) -> float:
    """The contrast of a style's colours; of those that a terminal chooses, enough."""
    if style is None or style.color is None or style.bgcolor is None:
        return 21.0
    if style.color.triplet is None or style.bgcolor.triplet is None:
        return 21.0
    light, dark = sorted((_luminance(style.color.triplet), _luminance(style.bgcolor.triplet)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(triplet: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in triplet.normalized]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
