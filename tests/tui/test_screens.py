"""Every screen at the smallest size, to the cell; the workbench at three sizes and in three looks.

What other sizes and looks must show of each screen is in `rendered.assert_readable`.
`pytest tests/tui/test_screens.py --snapshot-update` writes the pictures anew; `make screenshots` also makes a
sheet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension
from textual.widgets import OptionList

from edge_tui.decoders import Problem
from edge_tui.engine.models import memory_estimate
from edge_tui.hub import precision_options
from edge_tui.machine.devices import Device
from edge_tui.machine.nvml import GpuProcess
from edge_tui.tui.app import EdgeApp
from tests.tui.rendered import assert_readable, settle, until
from tests.tui.test_workbench import ended

SMALLEST, MIDDLE, WIDEST = (80, 24), (120, 40), (200, 50)
DAILY = ((MIDDLE, "light"), (WIDEST, "no colour"))
"""Each size and each look once; the smallest one in the dark has pictures of all screens."""


def marks(size: tuple[int, int], look: str) -> Sequence[pytest.MarkDecorator]:
    """Leaves other pairs of a size and a look to the long tests."""
    return () if (size, look) in DAILY else (pytest.mark.proof,)


LOOKS = pytest.mark.parametrize(
    ("size", "look"),
    [
        pytest.param(size, look, id=f"{size[0]}x{size[1]}-{look}", marks=marks(size, look))
        for size in (SMALLEST, MIDDLE, WIDEST)
        for look in ("dark", "light", "no colour")
        if (size, look) != (SMALLEST, "dark")  # that one is among all screens
    ],
)
GPU = Device("cuda:0", "NVIDIA RTX A2000", 6_000_000_000, 2_900_000_000)
CODE = '''"""Top-a."""


class TopA(Filter):
    def apply(self, z, p, s, rng):
        best = prob.amaxx(-1, keepdim=True)
        return z.masked_fill(prob < p["a"] * best**2, -math.inf)
'''


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same GPU, and the same neighbours on it, wherever this runs."""
    monkeypatch.setattr("edge_tui.machine.devices.devices", lambda: [GPU])
    monkeypatch.setattr(precision_options, "devices", lambda: [GPU])
    monkeypatch.setattr(
        precision_options, "gpu_processes", lambda name: [GpuProcess(4242, "vllm", 1_500_000_000)]
    )
    monkeypatch.setattr(memory_estimate, "free_memory", lambda device: GPU.free)
    monkeypatch.setattr(memory_estimate, "compute_capability", lambda device: (8, 6))
    monkeypatch.setattr("edge_tui.engine.ops.quantisation.find_spec", lambda name: object())


class Sheet:
    """One app, walked through its screens, each held to its picture."""

    def __init__(self, pilot: Any, folder: Path, snapshot: Any) -> None:
        self.pilot = pilot
        self.app = pilot.app
        self.bench = pilot.app.workbench
        self.folder = folder
        self.different: list[str] = []
        self._snapshot = snapshot.use_extension(SVGImageExtension)

    async def take(self, name: str) -> None:
        await settle(self.pilot)
        picture = self.app.export_screenshot()
        if picture != self._snapshot(name=name):
            (self.folder / f"{name}.svg").write_text(picture)
            self.different.append(str(self.folder / f"{name}.svg"))

    async def until(self, look: Callable[[], object]) -> None:
        await until(self.pilot, look)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


class Reading(Sheet):
    """One app, walked through its screens, each held to what every size and look must show."""

    async def take(self, name: str) -> None:
        await settle(self.pilot)
        try:
            assert_readable(self.app)
        except AssertionError as error:
            self.different.append(f"{name}: {error}")


async def ran(sheet: Sheet) -> None:
    """Runs a prompt, and goes back to one of its tokens."""
    sheet.bench.prompt.insert("Why is the sky blue?")
    await sheet.press("ctrl+j")
    await sheet.until(lambda: sheet.bench.pane.transcript is not None and ended(sheet.bench))
    await sheet.press("h", "h", "h")
    await sheet.take("token")


async def workbench(sheet: Sheet) -> None:
    sheet.bench.lessons.restore(offer=True)
    await sheet.take("first start")
    sheet.bench.lessons.leave()
    await ran(sheet)


async def parameter(sheet: Sheet) -> None:
    await sheet.press("e", "down", "space", *["right"] * 6)
    await sheet.take("parameter")
    await sheet.press("backspace", "escape")


async def strategies(sheet: Sheet) -> None:
    sheet.bench.pane.focus()
    await sheet.press("s")
    await sheet.take("strategies")
    await sheet.press("escape")


async def chain(sheet: Sheet) -> None:
    await sheet.press("S", "down", "down", "space", "up", "up", "space")
    await sheet.take("chain")
    await sheet.press("down", "down", "space", "escape")


async def models(sheet: Sheet) -> None:
    await sheet.press("m")
    await sheet.until(lambda: sheet.app.screen.query_one(OptionList).option_count)
    await sheet.until(lambda: sheet.app.screen.estimate is not None)
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
    sheet.bench.view.error_panel.show(Problem(str(file), 6, said))
    await sheet.take("problem")
    sheet.bench.view.error_panel.show(None)


async def beams(sheet: Sheet) -> None:
    await sheet.press("2", "ctrl+j")
    await sheet.until(lambda: sheet.bench.view.output.has_class("-board"))
    await sheet.take("beams")


SCREENS: tuple[Callable[[Sheet], Awaitable[None]], ...] = (
    workbench,
    parameter,
    strategies,
    chain,
    models,
    settings,
    themes,
    help,
    problem,
    beams,
)


async def walk(
    app: EdgeApp,
    screens: Sequence[Callable[[Sheet], Awaitable[None]]],
    size: tuple[int, int],
    sheet: Callable[[Any], Sheet],
) -> None:
    """Takes an app through screens, and holds each to its picture; `sheet` makes one of a pilot."""
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.1)
        pictures = sheet(pilot)
        for screen in screens:
            await screen(pictures)
    assert not pictures.different, f"look at {', '.join(pictures.different)}"


async def test_every_screen(picture: Any, snapshot: Any, tmp_path: Path) -> None:
    await walk(picture(), SCREENS, SMALLEST, lambda pilot: Sheet(pilot, tmp_path, snapshot))


@LOOKS
async def test_workbench(
    size: tuple[int, int], theme: str, picture: Any, snapshot: Any, tmp_path: Path
) -> None:
    await walk(picture(theme=theme), [ran], size, lambda pilot: Sheet(pilot, tmp_path, snapshot))


@pytest.mark.parametrize(
    ("size", "look"), [(MIDDLE, "light"), pytest.param(WIDEST, "no colour", marks=pytest.mark.proof)]
)
async def test_every_screen_is_readable(
    size: tuple[int, int], theme: str, picture: Any, snapshot: Any, tmp_path: Path
) -> None:
    await walk(picture(theme=theme), SCREENS, size, lambda pilot: Reading(pilot, tmp_path, snapshot))
