"""The screen comes first: nothing that takes the interpreter, or is drawn for nobody, delays it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.compositor import RowCompositor
from tests.tui.engines import PictureEngine


class Watched(EdgeApp):
    """Notes what happens in which order."""

    CSS_PATH = Path(inspect.getfile(EdgeApp)).with_name("app.tcss")

    def __init__(self) -> None:
        super().__init__(self._engine, Settings(), theme_folders=[resources.themes()])
        self.order: list[str] = []

    def _engine(self) -> PictureEngine:
        self.order.append("engine")
        return PictureEngine()

    def _display(self, screen: Any, renderable: Any) -> None:
        if renderable is not None:
            self.order.append("thrown away" if self.gathering else "painted")
        super()._display(screen, renderable)


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_the_engine_is_made_once_the_screen_is_painted(size: tuple[int, int]) -> None:
    app = Watched()
    async with app.run_test(size=size) as pilot:
        while "engine" not in app.order:
            await pilot.pause(0.01)
    assert app.order[0] == "painted"
    assert "thrown away" not in app.order[: app.order.index("engine")]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 45)])
async def test_everything_is_styled_and_rendered_once_before_the_first_frame(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Watched()
    whole: list[str] = []
    update, render = Stylesheet.update_nodes, RowCompositor.render_full_update

    def update_nodes(self: Any, nodes: Any, animate: bool = False) -> None:
        nodes = list(nodes)
        if not app.order and len(nodes) > 20:
            whole.append("styled")
        update(self, nodes, animate)

    def render_full_update(self: Any, simplify: bool = False) -> Any:
        if not app.order:
            whole.append("rendered")
        return render(self, simplify)

    monkeypatch.setattr(Stylesheet, "update_nodes", update_nodes)
    monkeypatch.setattr(RowCompositor, "render_full_update", render_full_update)
    async with app.run_test(size=size) as pilot:
        while not app.order:
            await pilot.pause(0.01)
    assert whole == ["styled", "rendered"]
