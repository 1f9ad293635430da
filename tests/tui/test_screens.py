"""Every screen at three sizes, dark, light and without colour, to the cell; nine starts of the app in all.

`pytest tests/tui/test_screens.py --snapshot-update` writes them anew; `make screenshots` also makes a sheet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension
from textual.widgets import Input, OptionList, TextArea

from edge_tui.decoders import Problem
from edge_tui.engine.models import memory_estimate
from edge_tui.hub import memory_estimate as hub_estimate
from edge_tui.machine.devices import Device
from edge_tui.machine.nvml import GpuProcess
from edge_tui.tui.app import EdgeApp

SIZES = [(80, 24), (120, 40), (200, 50)]
GPU = Device("cuda:0", "NVIDIA RTX A2000", 0, 6_000_000_000, 2_900_000_000)
CODE = '''"""Top-a."""


class TopA(Filter):
    def apply(self, z, p, s, rng):
        best = prob.amaxx(-1, keepdim=True)
        return z.masked_fill(prob < p["a"] * best**2, -math.inf)
'''


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same GPU, and the same neighbours on it, wherever this runs."""
    monkeypatch.setattr(hub_estimate, "devices", lambda: [GPU])
    monkeypatch.setattr(hub_estimate, "gpu_processes", lambda name: [GpuProcess(4242, "vllm", 1_500_000_000)])
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: GPU.free)
    monkeypatch.setattr("edge_tui.engine.ops.quantisation.find_spec", lambda name: object())


class Sheet:
    """One app, walked through its screens."""

    def __init__(self, pilot: Any, snapshot: Any, folder: Path) -> None:
        self.pilot = pilot
        self.app = pilot.app
        self.bench = pilot.app.workbench
        self.folder = folder
        self.different: list[str] = []
        self._snapshot = snapshot.use_extension(SVGImageExtension)

    async def settled(self) -> str:
        """The picture, once two in a row are the same."""
        for field in (*self.app.screen.query(Input), *self.app.screen.query(TextArea)):
            field.cursor_blink = False
        before = ""
        for _ in range(60):
            await self.pilot.pause(0.05)
            now: str = self.app.export_screenshot()
            if now == before:
                return now
            before = now
        raise AssertionError("the screen does not come to rest")

    async def take(self, name: str) -> None:
        picture = await self.settled()
        if picture != self._snapshot(name=name):
            (self.folder / f"{name}.svg").write_text(picture)
            self.different.append(str(self.folder / f"{name}.svg"))

    async def until(self, look: Callable[[], object]) -> None:
        for _ in range(400):
            if look():
                return
            await self.pilot.pause(0.025)
        raise AssertionError("it never came")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


async def workbench(sheet: Sheet) -> None:
    sheet.bench.tour.begin()
    await sheet.take("first start")
    sheet.bench.tour.leave()
    sheet.bench.prompt.insert("Why is the sky blue?")
    await sheet.press("ctrl+j")
    await sheet.until(lambda: sheet.bench.pane.transcript is not None)
    await sheet.settled()
    await sheet.press("h", "h", "h")
    await sheet.take("token")


async def parameter(sheet: Sheet) -> None:
    await sheet.press("e", "down", "space", *["right"] * 6)
    await sheet.take("parameter")
    await sheet.press("backspace", "escape")


async def strategies(sheet: Sheet) -> None:
    sheet.bench.pane.focus()
    await sheet.press("s")
    await sheet.take("strategies")
    await sheet.press("escape")


async def models(sheet: Sheet) -> None:
    await sheet.press("m")
    await sheet.until(lambda: sheet.app.screen.query_one(OptionList).option_count)
    await sheet.until(lambda: sheet.app.screen._estimate is not None)
    await sheet.take("models")
    await sheet.press("escape")


async def settings(sheet: Sheet) -> None:
    await sheet.press("comma", "down", "down")
    await sheet.take("settings")
    await sheet.press("escape")


async def themes(sheet: Sheet) -> None:
    await sheet.press("t")
    await sheet.take("themes")
    await sheet.press("escape")


async def help(sheet: Sheet) -> None:
    await sheet.press("question_mark")
    await sheet.take("help")
    await sheet.press("escape")


async def problem(sheet: Sheet) -> None:
    file = sheet.folder / "top_a.py"
    file.write_text(CODE)
    said = "AttributeError: 'Tensor' object has no attribute 'amaxx'"
    sheet.bench.error_panel.show(Problem(str(file), 6, said))
    await sheet.take("problem")
    sheet.bench.error_panel.show(None)


async def beams(sheet: Sheet) -> None:
    await sheet.press("2", "ctrl+j")
    await sheet.until(lambda: sheet.bench.has_class("-board"))
    await sheet.take("beams")


SCREENS: tuple[Callable[[Sheet], Awaitable[None]], ...] = (
    workbench,
    parameter,
    strategies,
    models,
    settings,
    themes,
    help,
    problem,
    beams,
)


async def walk(
    app: EdgeApp, screens: Sequence[Callable[[Sheet], Awaitable[None]]], size: tuple[int, int], sheet: Any
) -> None:
    """Takes an app through screens, and holds each to its picture; `sheet` makes one of a pilot."""
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.1)
        pictures = sheet(pilot)
        for screen in screens:
            await screen(pictures)
    assert not pictures.different, f"look at {', '.join(pictures.different)}"


LOOKS = pytest.mark.parametrize("look", ["dark", "light", "no colour"])
AT_EACH_SIZE = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@LOOKS
@AT_EACH_SIZE
async def test_every_screen(
    size: tuple[int, int], theme: str, picture: Any, snapshot: Any, tmp_path: Path
) -> None:
    await walk(picture(theme=theme), SCREENS, size, lambda pilot: Sheet(pilot, snapshot, tmp_path))
