"""Takes the pictures of `docs/` from the running app: `make screenshots`.

The real app on the demo pair and this machine's processor: a prompt is typed and run, and Textual exports
what is on the screen as SVG. Text, colours and layout are the same every time; the gauge shows this machine.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_tui.config.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"
SIZE = (120, 34)
PROMPT = "class Stack:\n    def __init__(self"
PATIENCE = 60.0
"""Seconds to wait for something to appear."""

PICTURES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "workbench": ("top_p", 150, ("n", "n", "n", "i")),
    "beams": ("beam", 40, ()),
}
"""Pictures by name: strategy, new tokens, and the keys pressed when the text is there."""


async def take(name: str, settings: Settings, keys: tuple[str, ...], folder: Path = DOCS) -> Path:
    """Runs the app and writes one picture."""
    from edge_tui.engine.local import LocalEngine
    from edge_tui.machine.telemetry import Telemetry
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.workbench.screen import WorkbenchScreen

    app = EdgeApp(lambda: LocalEngine(settings.specs()), settings, telemetry=Telemetry("cuda:0"))
    async with app.run_test(size=SIZE) as pilot:

        async def until(there: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE
            while not there():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} did not come about in {PATIENCE:.0f} s")
                await pilot.pause(0.05)

        await until(lambda: isinstance(app.screen, WorkbenchScreen) and "model" in app.session.loaded)
        screen = app.screen
        assert isinstance(screen, WorkbenchScreen)
        screen.prompt.insert(PROMPT)
        await pilot.press("ctrl+j")
        await until(lambda: app.session.run is not None and app.session.run.finished is not None)
        await pilot.pause(1.2)  # the gauge settles
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.1)
        picture = folder / f"{name}.svg"
        picture.write_text(app.export_screenshot(title="edge-tui"), encoding="utf-8")
        if app.session.engine is not None:
            app.session.engine.close(2.0)
    return picture


def settings_of(name: str) -> Settings:
    """Makes the settings of a picture's run."""
    from edge_tui.config.settings import COMMON, Settings

    strategy, tokens, _ = PICTURES[name]
    return replace(
        Settings(),
        strategy=strategy,
        parameters={COMMON: {"temperature": 0.85}},
        max_length=tokens,
        seed=2,
        device="cpu",  # every machine has one
    )


def main() -> None:
    """Takes all pictures."""
    os.environ.pop("NO_COLOR", None)
    for name, (_, _, keys) in PICTURES.items():
        print(asyncio.run(take(name, settings_of(name), keys)))


if __name__ == "__main__":
    main()
