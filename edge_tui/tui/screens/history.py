"""Searches, previews, opens, compares, exports and deletes stored runs."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual import work
from textual.containers import Container, Vertical
from textual.content import Content

from edge_tui.engine import seeds
from edge_tui.history import formats
from edge_tui.history.formats.facts import ending
from edge_tui.history.formats.palette import THEMES
from edge_tui.history.reproduce import reproduction
from edge_tui.history.restore import transcript_of
from edge_tui.history.schema import HistoryError
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.services import services
from edge_tui.tui.stored_runs import run_of
from edge_tui.tui.widgets.field import Field
from edge_tui.tui.widgets.fitted_text import FittedText
from edge_tui.tui.widgets.run_list import RunList
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.util import user_file
from edge_tui.util.atomic_write import create_numbered_file
from edge_tui.util.formatting import rate
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.app import App
    from textual.widget import Widget
    from textual.widgets import Input

    from edge_tui.history.runs import Entry, StoredRun
    from edge_tui.history.store import Store
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.session import Run, Session

_PREVIEWED = 1000
"""Tokens that a preview reads: a screenful, and quick whatever the run's length."""
_PERIOD = 1.0
"""Seconds between looks at the runs that are under way."""
WIDE = 150
"""Least width that sets list and preview side by side."""
_EMPTY = "Nothing has been kept yet: ctrl+j in the workbench runs a prompt, and it will be here."
_NOTHING = "No run holds that."


@dataclass(frozen=True, slots=True)
class HistoryChoice:
    """Names a run and what to do with it: open it, or run its prompt again."""

    action: Literal["open", "again"]
    run: int


class HistoryScreen(Dialog[HistoryChoice]):
    """Shows a search field, a list, and a preview in the run's colours; deletes on the way out.

    Args:
        store: The history.
        titles: Strategies' titles by name.
        session: Engine and runs, for the comparison of two.
    """

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - Textual declares it so
    BINDINGS = bindings("history")
    AUTO_FOCUS = "Input"
    heading = "history"
    hint = "↵ open · ^g again · ^d compare · ^s export · ^x delete · esc leave"

    def __init__(self, store: Store, titles: Mapping[str, str], session: Session) -> None:
        super().__init__()
        self._store = store
        self._session = session
        self.entries: list[Entry] = []
        """Every run, newest first."""
        self.list = RunList(titles, id="runs")
        self.pane = TokenPane("", id="preview-tokens")
        self.pane.can_focus = False
        self.about = FittedText(id="about")
        self._previewed: int | None = None
        """The run that the preview shows."""
        self._said = False
        """True where a sentence was said since the cursor came to the run."""

    def content(self) -> Iterable[Widget]:
        """Lists the search field, then the list beside its preview."""
        preview = Vertical(self.about, self.pane, id="preview")
        return Field("search prompts, answers, models"), Container(self.list, preview, id="both")

    async def on_mount(self) -> None:
        """Reads the runs in a thread and lists them."""
        try:
            self.entries = await asyncio.to_thread(self._store.runs)
        except HistoryError as error:
            self._say(str(error), "$error")
            return
        self.show(self.entries)
        self.set_interval(_PERIOD, self._follow)

    @work(exclusive=True, group="follow")
    async def _follow(self) -> None:
        """Reads the runs that were under way again, and shows what has become of them."""
        runs = [entry.id for entry in self.entries if entry.state == "running"]
        if not runs:
            return
        try:
            found = await asyncio.to_thread(self._store.entries, runs)
        except HistoryError as error:
            self._say(str(error), "$error")
            return
        here = self.list.entry
        self.entries = _replaced(self.entries, runs, found)
        self.show(_replaced(self.list.entries, runs, found))
        if here is not None and self.list.entry != here:
            self._preview()

    # Searching.

    def on_input_changed(self, event: Input.Changed) -> None:
        """Searches for what is typed."""
        event.stop()
        self._search(event.value)

    @work(exclusive=True, group="search")
    async def _search(self, query: str) -> None:
        try:
            found = await asyncio.to_thread(self._store.search, query) if query.strip() else None
        except HistoryError as error:
            self._say(str(error), "$error")
            return
        entries = self.entries if found is None else [entry for entry in self.entries if entry.id in found]
        self.show(entries)

    def show(self, entries: Sequence[Entry]) -> None:
        """Shows some of the runs, or says that there is none."""
        if not self.is_attached:
            return
        self.list.show(entries)
        if not entries:
            self._say(_NOTHING if self.entries else _EMPTY)
        count = f"{len(entries):,} of " if len(entries) < len(self.entries) else ""
        runs = "run" if len(self.entries) == 1 else "runs"
        self.box.border_title = f"history · {count}{len(self.entries):,} {runs}"

    def action_move(self, step: int) -> None:
        """Moves the cursor of the list while the field has the focus."""
        self.list.cursor += step

    # The run under the cursor.

    def on_run_list_moved(self) -> None:
        """Previews the run under the cursor."""
        self._preview()

    @work(exclusive=True, group="preview")
    async def _preview(self) -> None:
        """Reads the run under the cursor in a thread, and shows it."""
        entry = self.list.entry
        if entry is None:
            self._previewed = None
            self.pane.show(None)
            return
        if entry.id != self._previewed:
            self._previewed, self._said = entry.id, False
        # Who holds an arrow key down passes by.
        await asyncio.sleep(0.03)
        try:
            stored, transcript = await asyncio.to_thread(_read, self._store, entry.id)
        except HistoryError as error:
            self.pane.show(None)
            self._say(str(error), "$error")
            return
        if self.is_attached:
            if not self._said:
                self.about.update(_about(stored))
            self.pane.show(transcript)
            self.pane.action_cursor_first()
            self.pane.cursor = None

    def _say(self, sentence: str, style: str = "$text-muted") -> None:
        self._said = True
        self.about.update(Content.assemble((one_line(sentence), style)))

    # Actions on the run.

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Opens the run under the cursor."""
        event.stop()
        self.action_open_run()

    def on_run_list_opened(self) -> None:
        """Opens the run that was clicked."""
        self.action_open_run()

    def action_open_run(self) -> None:
        """Closes with the run under the cursor, to be shown."""
        self._choose("open")

    def action_run_again(self) -> None:
        """Closes with the run under the cursor, to be run again."""
        self._choose("again")

    def _choose(self, action: Literal["open", "again"]) -> None:
        entry = self.list.entry
        if entry is not None and entry.id not in self.list.marked_for_delete:
            self._leave(HistoryChoice(action, entry.id))

    def action_mark(self) -> None:
        """Marks a run; on another one, compares the two."""
        entry, marked = self.list.entry, self.list.marked
        if entry is None:
            return
        if marked is None or marked == entry.id:
            self.list.marked = None if marked else entry.id
            self._say("Marked: ^d on another run compares the two." if not marked else "No longer marked.")
        else:
            self._compare(marked, entry.id)
            self.list.marked = None
        self.list.update_lines()

    @work
    async def _compare(self, first: int, second: int) -> None:
        from edge_tui.tui.screens.compare import CompareScreen, Taken

        def take(taken: Taken | None) -> None:
            if taken is not None:
                self._leave(HistoryChoice("open", first if taken.run is runs[0] else second))

        try:
            runs = [await asyncio.to_thread(_read_run, self._store, run) for run in (first, second)]
        except HistoryError as error:
            self._say(str(error), "$error")
            return
        if self.app.screen is self:  # and was not left while the two were read
            self.app.push_screen(CompareScreen(runs[0], runs[1], self._session, "compare"), take)

    @work(exclusive=True, group="command")
    async def action_copy_command(self) -> None:
        """Copies the command that makes the run under the cursor again, and shows it."""
        entry = self.list.entry
        if entry is None:
            return
        try:
            stored, _ = await asyncio.to_thread(_read, self._store, entry.id, 1)
        except HistoryError as error:
            self._say(str(error), "$error")
            return
        again, support = reproduction(stored), services(self).clipboard_support()
        if again.arguments and support.works == "no":
            self._say(f"{support.advice} An export (^s) has the command.", "$warning")
        elif again.arguments:
            services(self).copy_to_clipboard(again.line)
            self._say(f"Copied: {again.line}", "$success")
        else:
            self._say(f"There is {again.line}")

    def action_export(self) -> None:
        """Asks for the kind of file, and writes the run under the cursor."""
        from edge_tui.tui.screens.export import ExportScreen

        entry = self.list.entry
        if entry is None:
            return

        def chosen(kind: str | None) -> None:
            if kind:
                self._export(entry.id, kind)

        self.app.push_screen(ExportScreen(), chosen)

    @work
    async def _export(self, run: int, kind: str) -> None:
        theme = self.app.theme if self.app.theme in THEMES else THEMES[0]
        try:
            path = await asyncio.to_thread(_write, self._store, run, kind, theme)
        except HistoryError as error:
            self._say(str(error), "$error")
        except OSError as error:
            self._say(f"{error.filename} cannot be written: {user_file.error_reason(error)}.", "$error")
        else:
            self._say(f"Written to {path}.", "$success")

    def action_delete(self) -> None:
        """Marks the run under the cursor for deletion, or takes the mark back."""
        entry = self.list.entry
        if entry is None:
            return
        self.list.marked_for_delete ^= {entry.id}
        self.list.update_lines()
        deleted = entry.id in self.list.marked_for_delete
        self._say("Deleted as soon as you leave; ^x again keeps it." if deleted else "It stays.")

    def action_leave(self) -> None:
        """Closes without a run, and deletes those that are marked."""
        self._leave(None)

    def _leave(self, choice: HistoryChoice | None) -> None:
        marked_for_delete = sorted(self.list.marked_for_delete)
        if marked_for_delete:
            self.app.run_worker(_delete(self.app, self._store, marked_for_delete), exclusive=False)
        self.dismiss(choice)


def _replaced(entries: Sequence[Entry], runs: Sequence[int], found: Mapping[int, Entry]) -> list[Entry]:
    """Replaces the lines of some runs by those found; those of runs that were not found go."""
    return [found.get(entry.id, entry) for entry in entries if entry.id in found or entry.id not in runs]


def _read(store: Store, run: int, tokens: int | None = _PREVIEWED) -> tuple[StoredRun, Transcript]:
    stored = store.load(run, tokens)
    return stored, transcript_of(stored)


def _read_run(store: Store, run: int) -> Run:
    stored, transcript = _read(store, run, None)
    return run_of(stored, transcript, store.token_strings(stored.model))


def _write(store: Store, run: int, kind: str, theme: str) -> Path:
    """Writes an export into the working folder, readable by its owner alone; never over another file."""
    stored, transcript = _read(store, run, None)
    data = formats.render(kind, stored, transcript, store.token_strings(stored.model), theme)
    return create_numbered_file(Path.cwd() / formats.file_name(stored, kind), data)


async def _delete(app: App[object], store: Store, runs: Sequence[int]) -> None:
    """Deletes runs after the screen has closed."""
    try:
        for run in runs:
            await asyncio.to_thread(store.delete, run)
    except (HistoryError, sqlite3.Error) as error:
        sentence = one_line(f"Not all could be deleted: {error}.")
        app.notify(sentence, severity="error", markup=False)


def _about(stored: StoredRun) -> Content:
    """Writes two lines about a run: its model and its end, then its prompt."""
    entry, started, finished = stored.entry, stored.started, stored.finished
    parts = [entry.model, ending(stored)]
    if started is not None:
        parts.insert(1, f"seed {seeds.span(started.seed, stored.request.samples)}")
    if finished is not None and finished.seconds:
        parts.append(f"{rate(finished.tokens_per_second)} tok/s")
    sentence = one_line(" · ".join(part for part in parts if part))
    turn = f"turn {entry.turn + 1} · " if entry.conversation else ""
    prompt = one_line(" ".join(stored.prompt[:400].split()))
    return Content.assemble((sentence, "$text-muted"), "\n", (turn, "$primary"), (prompt, "$foreground"))
