"""What the screen looks like, to the cell: SVG snapshots on a fixed engine, clock and telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.tui.rendered import settle, until
from tests.tui.test_workbench import ended

if TYPE_CHECKING:
    from textual.pilot import Pilot

PROMPT = "Why is the sky blue?"


def ran(*keys: str) -> Any:
    """Types the prompt, runs it, presses keys."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await settle(pilot)
        app.workbench.prompt.insert(PROMPT)
        await pilot.press("ctrl+j")
        await until(pilot, lambda: app.workbench.pane.transcript is not None and ended(app.workbench))
        await until(pilot, lambda: "tokens" in str(app.workbench.prompt.border_subtitle))
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await until(pilot, lambda: ended(app.workbench))  # before the cursor counts its tokens
            await settle(pilot)

    return before


def test_first_frame(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(gpu=False), terminal_size=(80, 24), run_before=settle)


def test_inspector_in_place_of_the_sidebar(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(), terminal_size=(80, 24), run_before=ran("h", "h", "enter"))


def test_inspector_beside(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(), terminal_size=(160, 45), run_before=ran("7", "ctrl+j", "h", "h"))


def test_folded(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(), terminal_size=(80, 24), run_before=ran("b"))


def test_ansi(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(theme="ansi-16"), terminal_size=(80, 24), run_before=ran())


def test_too_small(snap_compare: Any, picture: Any) -> None:
    assert snap_compare(picture(), terminal_size=(50, 12), run_before=settle)
