"""Runs the app: the engine, the settings and the event loop's timer behind the screens. No widget in here."""

from __future__ import annotations

import asyncio
import gc
import os
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, work

from edge_tui import decoders
from edge_tui.config import names
from edge_tui.engine.events import Died, Failed, Loaded, Unloaded
from edge_tui.history.schema import HistoryError
from edge_tui.machine.telemetry import gpus_of
from edge_tui.tui import crash, lifecycle, pastes, theme
from edge_tui.tui.actions import bindings
from edge_tui.tui.dialogs import Dialogs
from edge_tui.tui.downloads import Downloads
from edge_tui.tui.history_access import HistoryAccess
from edge_tui.tui.keymap import catalog, resolve
from edge_tui.tui.pacing import Pacer
from edge_tui.tui.palette import ActionsProvider
from edge_tui.tui.reloading import watch_strategies, watch_themes
from edge_tui.tui.run_params import RunParams
from edge_tui.tui.session import Session
from edge_tui.tui.shutdown import Shutdown
from edge_tui.tui.terminal import BackgroundReply, WidthReply, guess_dark, wants_ascii
from edge_tui.tui.terminal_app import TerminalApp
from edge_tui.tui.theme_switch import ThemeSwitch
from edge_tui.tui.workbench.screen import WorkbenchScreen
from edge_tui.tui.workbench.view import WorkbenchView
from edge_tui.util import logs
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import RenderableType
    from textual.app import App
    from textual.command import Provider
    from textual.driver import Driver
    from textual.screen import Screen

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Engine
    from edge_tui.engine.remote.telemetry import RemoteTelemetry
    from edge_tui.history.recorder import Recorder
    from edge_tui.history.store import Store
    from edge_tui.hub.remote import Progress
    from edge_tui.machine.telemetry import Telemetry
    from edge_tui.tui.input_parser import PasteRefused
    from edge_tui.tui.preferences import Preferences
    from edge_tui.tui.services import Services
    from edge_tui.tui.theme import Themes
    from edge_tui.tui.widgets.message_line import Kind

NOTICES = 3
"""Most sentences about the start that are shown at once."""


class EdgeApp(TerminalApp):
    """Starts the engine, hands its events to the screens, and gives screens the services of the app.

    Args:
        engine_factory: Makes the engine at once, after the first frame and again after the engine died.
        settings: The settings to start with.
        notices: Sentences about settings that cannot be used.
        telemetry: Samples of the machine that decodes; None shows none.
        theme_folders: Folders of theme files; the built-in ones and the user's when None.
        session: The state to start from; tests give one with a clock of their own.
        lessons: True says at the first start that there are lessons.
        recorder: Makes the recorder of runs, once the first frame is on the screen; None records nothing.
    """

    CSS_PATH = "app.tcss"
    TITLE = "edge-tui"
    COMMANDS: ClassVar[set[type[Provider]]] = {ActionsProvider}  # type: ignore[assignment]
    BINDINGS = bindings("app")

    def __init__(
        self,
        engine_factory: Callable[[], Engine],
        settings: Settings,
        *,
        notices: Sequence[Notice | str] = (),
        telemetry: Telemetry | RemoteTelemetry | None = None,
        theme_folders: Sequence[Path] | None = None,
        session: Session | None = None,
        lessons: bool = False,
        recorder: Callable[[], Recorder | None] | None = None,
    ) -> None:
        super().__init__(wants_ascii(os.environ) if settings.ui.ascii is None else settings.ui.ascii)
        self.settings, self._offers_lessons = settings, lessons
        self.session = session or Session()
        self._make_recorder = recorder
        self._history = HistoryAccess(self.session)
        self.telemetry = telemetry
        self._factory = engine_factory
        theme_folders = theme.folders() if theme_folders is None else theme_folders
        self.downloads = Downloads(partial(self.call_later, self._download_ended))
        themes = theme.load(theme_folders)
        self.theme_switch = ThemeSwitch(cast("App[int]", self), themes, guess_dark(os.environ))
        self._watches = (
            watch_strategies(partial(self.call_later, self._strategies_changed)),
            watch_themes(theme_folders, themes, partial(self.call_later, self._themes_changed)),
        )
        found = decoders.current()
        self._notices = [*map(str, notices), *themes.notices, *map(str, found.problems), *found.notices]
        self._news: list[Event] = []
        self._painted = False
        self._dialogs = Dialogs(cast("App[int]", self), self)
        self.shutdown = Shutdown(cast("App[int]", self), self.session, self._prompt_text, self._stop_watching)

    def _build_driver(self, headless: bool, *args: Any, **kwargs: Any) -> Driver:
        """Installs the signal handlers before the driver takes the screen."""
        if not headless:
            lifecycle.on_signals(self.shutdown.leave)
        return super()._build_driver(headless, *args, **kwargs)

    def on_mount(self) -> None:
        """Chooses the theme, binds the user's keys and opens the workbench."""
        name = self.settings.ui.theme
        if name not in self.theme_switch.names:
            self._notices.append(f"There is no theme {name!r}; t lists the themes.")
        self.theme_switch.choose(name)
        if self.settings.keys:
            self.remap()
        decoder = names.find(self.settings.strategy) or decoders.strategies()[0]
        run_params = RunParams(self.settings, decoder)
        view = WorkbenchView(self.session, run_params, self.telemetry)
        self.workbench = WorkbenchScreen(self.session, run_params, view, self.size)
        self.push_screen(self.workbench)
        self.call_later(self.workbench.refresh)
        if not self.is_headless:
            self.shutdown.watch()

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Paints, and starts the engine after the workbench's first frame.

        The engine's thread imports torch, which takes the interpreter for a while. Textual's own hooks after
        a refresh come too early: what is rendered during its start is not painted yet.
        """
        super()._display(screen, renderable)
        if not self._painted and renderable is not None and not self.gathering:
            self._painted = screen is self.workbench
            if self._painted:
                self.call_later(self._begin)

    def _begin(self) -> None:
        """Starts recorder, engine, telemetry and watches, and says what the start has found."""
        gc.enable()
        if self._make_recorder is not None:
            self.session.recorder = self._make_recorder()
        self.session.launch(self._factory)
        if self.session.recorder is not None:
            self._offer_interrupted()
        if self.telemetry is not None:
            self.telemetry.start()
        if self._notices:
            self._notify_of(self._notices)
            self.say(self._notices[0], "warning")
        self._restore_prompt()
        self.workbench.strategies.show_problem()
        self.workbench.lessons.restore(self._offers_lessons)
        for watch in self._watches:
            watch.start()
        self._pacer = Pacer(cast("App[object]", self))
        self.set_interval(max(1 / max(self.settings.ui.frame_rate, 1), Pacer.TICK), self.tick)

    def _notify_of(self, notices: Sequence[str]) -> None:
        """Shows the first few notices of the start in one place, so that they do not cover the screen."""
        shown = [sanitise(notice) for notice in notices[:NOTICES]]
        if (more := len(notices) - NOTICES) > 0:
            shown.append(f"And {more} more: `edge-tui config` names every setting that cannot be used.")
        self.notify("\n".join(shown), severity="warning", markup=False, timeout=10)

    def tick(self) -> None:
        """Takes the engine's events, and paints if the terminal is ready."""
        if self.shutdown.leaving or not self.workbench.is_attached:
            return
        if problem := self._history.new_problem():
            self.notify(sanitise(problem), severity="warning", markup=False, timeout=10)
        # Events are always taken, so that memory stays level; painting waits for the terminal.
        news = self.session.pump()
        for event in news:
            self._follow(event)
        self._news += news
        if not self._pacer.ready():
            return
        news, self._news, self.session.unpainted = self._news, [], False
        self.workbench.tick(news, self.telemetry.latest() if self.telemetry is not None else None)
        if (models := self._dialogs.models) is not None:
            models.tick(news)

    def remap(self) -> None:
        """Binds the keys that the settings give to actions."""
        self.keymap = resolve(self.settings.keys, catalog())
        self._notices += self.keymap.notices
        self.set_keymap(self.keymap.keys)

    def say(self, message: str, kind: Kind = "info") -> None:
        """Puts a sentence on the workbench's message line."""
        self.workbench.view.say(message, kind)

    # Settings.

    def preferences(self) -> Preferences:
        """Returns the settings as their screen lists and changes them."""
        from edge_tui.tui.preferences import Preferences

        return Preferences(self.settings, catalog(), self.keymap, self.theme_switch.names)

    def take_settings(self, settings: Settings, key: str) -> None:
        """Replaces the settings, of which one has changed, and applies it where that is possible at once."""
        self.settings = settings
        if key.startswith("keys."):
            self.remap()
        elif key == "ui.theme":
            self.theme_switch.choose(settings.ui.theme)
        self.workbench.take_settings(settings, key)

    # Input and answers of the terminal.

    def on_paste(self, event: events.Paste) -> None:
        """Puts a paste that no field took into the prompt."""
        if not event.text:
            return
        self.workbench.prompt.append(event.text)
        if self.screen is not self.workbench or self.workbench.too_small:
            self.notify(f"The paste is in the prompt: {len(event.text):,} characters.", markup=False)

    def on_paste_open(self) -> None:
        """Tells the user that a paste has paused."""
        self.say(pastes.PAUSED, "warning")

    def on_paste_refused(self, event: PasteRefused) -> None:
        """Tells the user that a paste was too long."""
        self.notify(pastes.refusal(event.length), severity="error", markup=False)

    def on_background_reply(self, event: BackgroundReply) -> None:
        """Follows the terminal's brightness with the theme."""
        self.theme_switch.set_dark(event.dark, self.settings.ui.theme)

    def on_width_reply(self, event: WidthReply) -> None:
        """Draws ASCII where the terminal draws lines two cells wide."""
        if event.wide and self.settings.ui.ascii is None and not self.ascii:
            self.ascii = True
            self.workbench.draw_ascii(True)

    # Files of the user's own.

    def _strategies_changed(self, files: set[Path]) -> None:
        if not self.shutdown.leaving:
            self.workbench.strategies.apply_strategies(files)

    def _themes_changed(self, themes: Themes) -> None:
        self.theme_switch.reload(themes)
        for notice in themes.notices:
            self.say(notice, "error")
        if not themes.notices:
            self.say("The themes were read again.", "good")

    def _download_ended(self, name: str, progress: Progress) -> None:
        if self.shutdown.leaving:
            return
        if progress.phase == "done":
            self.say(f"{name} is here: m lists it.", "good")
        elif progress.phase == "failed":
            self.say(progress.sentence, "error")
        if (models := self._dialogs.models) is not None:
            models.download_ended(name)

    # The history.

    def history(self) -> Store | None:
        """Returns the stored runs; None where runs are not recorded."""
        try:
            return self._history.store()
        except HistoryError as error:
            self.say(f"The history cannot be opened: {error}.", "error")
            return None

    @work
    async def _offer_interrupted(self) -> None:
        """Looks for the newest run that a vanished process left unfinished."""
        found = await asyncio.to_thread(self._history.interrupted)
        if found is not None and not self.shutdown.leaving:
            self._dialogs.offer_interrupted(found, self.workbench.reopen)

    # Screens.

    def show_models(self) -> None:
        """Opens the list of models."""
        self._dialogs.show_models(self.session, self.workbench.run_params)

    def show_themes(self) -> None:
        """Opens the list of themes."""
        self._dialogs.show_themes()

    def action_show_me(self) -> None:
        """Does the step of the lesson on the screen."""
        self.workbench.lessons.show_me()

    def action_show_help(self) -> None:
        """Opens the help."""
        self._dialogs.show_help()

    # The engine.

    def _follow(self, event: Event) -> None:
        """Does what an event of the engine asks of the app, whatever screen is shown."""
        if isinstance(event, Loaded | Unloaded):
            self._watch_gpus()
        match event:
            case Loaded():
                from edge_tui.hub import recent_models

                recent_models.remember(event.name)
            case Failed():
                self.notify(sanitise(event.message), severity="error", markup=False, timeout=8)
                if event.detail:
                    logs.write_detail(event.detail)
            case Died():
                logs.write_detail(event.detail)
                self.say(event.message, "error")
                self._dialogs.offer_restart(event, partial(self.session.launch, self._factory))

    def _watch_gpus(self) -> None:
        """Lets the gauge show the GPUs of the models in memory; the last ones where none is left."""
        if self.telemetry is not None and (gpus := gpus_of(self.session.loaded.values())):
            self.telemetry.watch(*gpus)

    # Leaving.

    async def action_quit(self) -> None:
        """Begins to leave."""
        self.shutdown.leave(0)

    def _stop_watching(self) -> None:
        """Ends downloads and the threads that watch files and the machine."""
        self.downloads.close()
        for watch in self._watches:
            watch.stop()
        if self.telemetry is not None:
            self.telemetry.stop()

    async def on_unmount(self) -> None:
        """Closes everything where `leave` has not done it."""
        await self.shutdown.unmounted()

    def _handle_exception(self, error: Exception) -> None:
        self.shutdown.fail(error)

    def on_background_failed(self, event: crash.BackgroundFailed) -> None:
        """Tells the user that something in the background has ended."""
        self.notify(event.sentence, severity="error", markup=False, timeout=10)

    def _prompt_text(self) -> str:
        return self.workbench.prompt.text if hasattr(self, "workbench") else ""

    def _restore_prompt(self) -> None:
        """Puts the prompt of a session that crashed, or lost its terminal, back into the field."""
        text, waiting = self.shutdown.restore_prompt()
        if text:
            self.workbench.prompt.put(text + self.workbench.prompt.text)
            more = f" {waiting:,} more: the next starts have them." if waiting else ""
            self.notify(f"The prompt of a session that ended unasked is back.{more}", timeout=10)


if TYPE_CHECKING:
    _CHECKED: type[Services] = EdgeApp


def run(app: EdgeApp) -> int:
    """Runs the app and returns its exit status, or ends the process itself where that would take long.

    Raises:
        KeyboardInterrupt: The user interrupted the start; the terminal is as it was.
    """
    code: int | None = None
    try:
        with lifecycle.on_thread_errors(app.shutdown.thread_failed):
            code = app.run(mouse=app.settings.ui.mouse)
        if not app.exiting and not app.shutdown.crash:
            app.shutdown.fail(RuntimeError("the app's event loop has ended"))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # leaving itself failed, or somebody asked for the interpreter's end
        app.shutdown.fail(error)
    finally:
        lifecycle.restore(app._driver)
    # Not before: restoring a terminal that is gone can hang.
    return app.shutdown.finish(code)
