"""What is kept and crafted, as `test_screens.py` has the rest.

`pytest tests/tui/test_kept_screens.py --snapshot-update` writes the pictures anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge_tui.config.presets import Preset, save
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.screens.compare import CompareScreen
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.tui.screens.export import ExportScreen
from edge_tui.tui.screens.history import HistoryScreen
from tests.tui.kept import ASKED, answered, fill, keeping
from tests.tui.rendered import is_open
from tests.tui.test_screens import MIDDLE, SMALLEST, WIDEST, Reading, Sheet, walk

pytestmark = pytest.mark.usefixtures("greenwich")


async def on(sheet: Sheet, screen: type[Any]) -> Any:
    """Waits for a screen."""
    await sheet.until(lambda: is_open(sheet.app, screen))
    return sheet.app.screen


async def away(sheet: Sheet) -> None:
    """Back to the token pane."""
    await sheet.press("escape")
    await sheet.until(lambda: sheet.app.screen is sheet.bench)
    sheet.bench.pane.focus()
    await sheet.pilot.pause()


async def interrupted(sheet: Sheet) -> None:
    await on(sheet, ConfirmScreen)
    await sheet.until(lambda: sheet.app.session.loaded)
    await sheet.take("interrupted")
    await away(sheet)


async def history(sheet: Sheet) -> None:
    await sheet.press("o")
    screen = await on(sheet, HistoryScreen)
    await sheet.until(lambda: screen.list.entries)
    await sheet.press("down")
    await sheet.until(lambda: screen.list.entry.prompt in str(screen.about.render()))
    await sheet.take("history")
    await sheet.press("ctrl+s")
    await on(sheet, ExportScreen)
    await sheet.take("export")
    await sheet.press("escape")
    await sheet.until(lambda: sheet.app.screen is screen)


async def comparison(sheet: Sheet) -> None:
    await sheet.press("down", "down", "ctrl+d", "down", "ctrl+d")
    await on(sheet, CompareScreen)
    await sheet.take("comparison")
    await sheet.press("escape")
    await on(sheet, HistoryScreen)
    await away(sheet)


async def presets(sheet: Sheet) -> None:
    for key, name in (("d", "presets"), ("D", "save preset")):
        await sheet.press(key)
        await sheet.take(name)
        await away(sheet)


async def prompts(sheet: Sheet) -> None:
    await sheet.press("ctrl+r", "down")
    await sheet.take("prompts")
    await away(sheet)


async def files(sheet: Sheet) -> None:
    await sheet.press("ctrl+o")
    # Where the folder lies differs from run to run.
    sheet.app.screen.query_one(".hint").update("~/prompts")
    await sheet.take("files")
    await away(sheet)


async def conversation(sheet: Sheet) -> None:
    await sheet.press("v")
    for number, turn in enumerate(ASKED, 1):
        sheet.bench.prompt.insert(turn)
        await sheet.press("ctrl+j")
        await sheet.until(lambda known=number: answered(sheet.bench, known))
    await sheet.press("u", "up")
    await sheet.take("conversation")


SCREENS: tuple[Callable[[Sheet], Awaitable[None]], ...] = (
    interrupted,
    history,
    comparison,
    presets,
    prompts,
    files,
    conversation,
)


def furnish(home: Path) -> Path:
    """Runs, presets and files to look at; returns the folder of the files."""
    runs = fill()
    store = Store(default_path())
    store.execute("UPDATE runs SET seen = 0 WHERE id = ?", (runs[3],))
    batch = store.load(runs[1]).batches[0]
    batch.id[9] += 1
    store.append_chunk(runs[1], 0, batch, replacing=1)
    store.close()
    save(Preset("mine", "contrastive", title="Mine", parameters={"alpha": 0.2}, system="Be brief."))
    folder = home / "prompts"
    (folder / "drafts").mkdir(parents=True)
    for name in ("haiku.txt", "review.md", "\x1b[31mhostile.txt"):
        (folder / name).write_text("x" * 99)
    return folder


async def test_every_kept_screen(
    snapshot: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(furnish(home))
    app = keeping(ascii=False)
    await walk(app, SCREENS, SMALLEST, lambda pilot: Sheet(pilot, tmp_path, snapshot))


@pytest.mark.parametrize(
    ("size", "look"), [pytest.param(MIDDLE, "light", marks=pytest.mark.proof), (WIDEST, "no colour")]
)
async def test_every_kept_screen_is_readable(
    size: tuple[int, int],
    theme: str,
    snapshot: Any,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(furnish(home))
    app = keeping(theme=theme, ascii=False)
    await walk(app, SCREENS, size, lambda pilot: Reading(pilot, tmp_path, snapshot))
