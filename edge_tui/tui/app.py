"""The application: engine, settings and themes behind the screens; no widget of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, work
from textual.app import App
from textual.command import DiscoveryHit, Hit, Provider

from edge_tui import decoders
from edge_tui.config import resources
from edge_tui.engine.events import Loaded
from edge_tui.history.schema import HistoryError
from edge_tui.tui import ascii_filter, clipboard, crash, lifecycle, pastes, theme, unsaved
from edge_tui.tui.actions import ACTIONS, SCOPES, bindings
from edge_tui.tui.control_filter import CONTROLS
from edge_tui.tui.downloads import DownloadEnded, Downloads
from edge_tui.tui.key_queue import Follower, KeyQueue
from edge_tui.tui.keymap import Keymap, catalog, resolve
from edge_tui.tui.pacing import Pacer
from edge_tui.tui.reloading import StrategiesChanged, ThemesChanged, watch_strategies, watch_themes
from edge_tui.tui.run_params import RunParams
from edge_tui.tui.screens.workbench import Workbench
from edge_tui.tui.session import Session
from edge_tui.tui.terminal import (
    BackgroundKnown,
    ClipboardKnown,
    WidthKnown,
    guess_dark,
    wants_ascii,
)
from edge_tui.util import logs
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType
    from textual.binding import Binding
    from textual.command import Hits
    from textual.driver import Driver
    from textual.filter import LineFilter
    from textual.screen import Screen

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Died, Event
    from edge_tui.engine.port import Engine, ModelSpec
    from edge_tui.engine.remote.machine import RemoteTelemetry
    from edge_tui.history.recorder import Recorder
    from edge_tui.history.runs import Entry
    from edge_tui.history.store import Store
    from edge_tui.machine.telemetry import Sample, Telemetry
    from edge_tui.tui.actions import Scope
    from edge_tui.tui.input_parser import PasteRefused
    from edge_tui.tui.preferences import Preferences
    from edge_tui.tui.screens.models import ModelsScreen

CLOSE_SECONDS = 0.8
"""How long a quit waits for the engine: a second at most is left of it in all."""

NOTICES = 3
"""Sentences about the start that are shown at once."""
OUTPUT_THREAD = "textual-output"
"""Textual's name for the thread that writes to the terminal."""


class ActionsProvider(Provider):
    """Every action of the registry in the command palette."""

    def _offers(self) -> Iterable[tuple[str, str, Callable[[], object]]]:
        app = self.app
        for action in ACTIONS:
            if action.palette:
                keys = f" ({action.written})" if action.written else ""
                target = f"app.{action.id}" if action.scope == "app" else f"screen.{action.id}"
                yield action.label, action.help + keys, lambda target=target: app.run_action(target)  # type: ignore[misc]
        if isinstance(self.screen, Workbench):
            workbench = self.screen
            for decoder in workbench.decoders:
                title = f"strategy: {sanitise(decoder.title, keep_newlines=False)}"
                yield title, sanitise(decoder.summary), lambda name=decoder.name: workbench.choose(name)  # type: ignore[misc]

    async def discover(self) -> Hits:
        for label, help_text, command in self._offers():
            yield DiscoveryHit(label, command, help=help_text)

    async def search(self, query: str) -> Hits:
        from edge_tui.tui.screens.filter_list import says

        matcher = self.matcher(query)
        for label, help_text, command in self._offers():
            score = max(matcher.match(label), 0.5 * says(help_text, query))
            if score > 0:
                yield Hit(score, matcher.highlight(label), command, help=help_text)


class EdgeApp(App[int]):
    """The workbench.

    Args:
        engine_factory: Makes the engine; called once the first frame is on the screen, and again after the
            engine died. Must return at once.
        settings: Where everything starts.
        notices: What was wrong with the settings.
        telemetry: Samples of the machine that decodes; None shows none.
        theme_folders: Where themes are looked for; the built-in ones and the user's when None.
        session: The state to start from; tests give one with a clock of their own.
        tour: Whether to begin with the tour.
        recorder: Makes what keeps the runs, once the first frame is on the screen; None keeps nothing.
    """

    CSS_PATH = "app.tcss"
    TITLE = "edge-tui"
    COMMANDS: ClassVar[set[type[Provider]]] = {ActionsProvider}  # type: ignore[assignment]
    BINDINGS: ClassVar[list[Binding]] = bindings("app")  # type: ignore[assignment]
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        engine_factory: Callable[[], Engine],
        settings: Settings,
        *,
        notices: Sequence[Notice | str] = (),
        telemetry: Telemetry | RemoteTelemetry | None = None,
        theme_folders: Sequence[Path] | None = None,
        session: Session | None = None,
        tour: bool = False,
        recorder: Callable[[], Recorder | None] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.ascii = wants_ascii(os.environ) if settings.ui.ascii is None else settings.ui.ascii
        self._dark = guess_dark(os.environ)
        self._clipboard_said: bool | None = None
        self._tour = tour
        self.session = session or Session()
        self._make_recorder = recorder
        self._history: Store | None = None
        self._told = ""
        self.telemetry = telemetry
        self._factory = engine_factory
        self._notices = [str(notice) for notice in notices]
        if theme_folders is None:
            from edge_tui.config.settings import user_config

            theme_folders = (resources.themes(), user_config().parent / "themes")
        self.keymap = Keymap({})
        self._key_queue = KeyQueue(cast("App[object]", self), super().on_event)
        self.downloads = Downloads(self.post_message)
        self._models: ModelsScreen | None = None
        self.themes = theme.load(theme_folders)
        self._watches = (watch_strategies(self), watch_themes(self, theme_folders, self.themes))
        for each in self.themes.themes.values():
            self.register_theme(each)
        self._notices += [*self.themes.notices, *map(str, decoders.problems()), *decoders.notices()]
        self._news: list[Event] = []
        self.watching: threading.Event | None = None
        self._leaving = False
        self._painted = False
        self._taken = ""
        self.crash = ""
        """What the shell is told about an exception that ended the app; "" without one."""
        self.clean = True
        """Whether the engine ended in time; if not, the process must not wait for its thread."""

    def get_driver_class(self) -> type[Driver]:
        """Where Textual takes its driver for POSIX terminals, the one that also asks them."""
        default = super().get_driver_class()
        if default.__name__ != "LinuxDriver":
            return default
        from edge_tui.tui.driver import TerminalDriver

        return TerminalDriver

    def _build_driver(self, headless: bool, *args: Any, **kwargs: Any) -> Driver:
        """Makes the driver, and heeds signals before it takes the screen."""
        if not headless:
            lifecycle.on_signals(self._leave)
        return super()._build_driver(headless, *args, **kwargs)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Filters that every painted line passes: controls out; marks as ASCII, if that is asked for."""
        filters = [*super().get_line_filters(), CONTROLS]
        return [*filters, ascii_filter.ALL] if self.ascii else filters

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The ladder of probabilities, and what Textual's own style sheets miss in ANSI themes."""
        ascii_filter = {"ansi-background": "ansi_default", "ansi-foreground": "ansi_default"}
        return {**theme.FALLBACK.variables, **ascii_filter}

    def on_mount(self) -> None:
        wanted = self.settings.ui.theme
        if wanted not in (theme.AUTO, *self.themes.themes):
            self._notices.append(f"There is no theme {wanted!r}; t shows those there are.")
        self.choose_theme(wanted)
        if self.settings.keys:
            self.remap()
        run_params = RunParams(self.settings, _decoder(self.settings.strategy))
        self.workbench = Workbench(self.session, run_params, decoders.strategies(), self.size)
        self.push_screen(self.workbench)
        self.call_later(self.workbench.refresh)
        if not self.is_headless:
            self.watching = lifecycle.watch_terminal(self._terminal_gone)
            asyncio.get_running_loop().set_exception_handler(self._loop_failed)

    @property
    def gathering(self) -> bool:
        """Whether changes are gathered, to be painted together."""
        return self._batch_count > 0

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Paints, and begins once the workbench was painted.

        The engine's thread imports torch, which takes the interpreter for a while. Textual's own hooks after
        a refresh come too early: what is rendered during its start is not painted yet.
        """
        super()._display(screen, renderable)
        if not self._painted and renderable is not None and not self.gathering:
            self._painted = screen is self.workbench
            if self._painted:
                self.call_later(self._begin)

    def _begin(self) -> None:
        gc.enable()
        if self._make_recorder is not None:
            self.session.recorder = self._make_recorder()
        self._make_engine()
        if self.session.recorder is not None:
            self._offer_interrupted(self.session.recorder)
        if self.telemetry is not None:
            self.telemetry.start()
        if self._notices:
            self._notify_of(self._notices)
            self.workbench.say(self._notices[0], "warning")
        self._restore_prompt()
        self.workbench.show_strategy_error()
        if self._tour:
            self.workbench.tour.begin()
        for watch in self._watches:
            watch.start()
        self._pacer = Pacer(cast("App[object]", self))
        self.set_interval(max(1 / max(self.settings.ui.frame_rate, 1), Pacer.TICK), self._tick)

    def _notify_of(self, notices: Sequence[str]) -> None:
        """Shows what was wrong at the start in one place: many would cover the screen, and each other."""
        shown = [sanitise(notice) for notice in notices[:NOTICES]]
        if (more := len(notices) - NOTICES) > 0:
            shown.append(f"And {more} more: `edge-tui config` names every setting that cannot be used.")
        self.notify("\n".join(shown), severity="warning", markup=False, timeout=10)

    def _make_engine(self) -> None:
        if self.session.engine is not None:
            # What is left of a dead engine must not take the device from the new one.
            self.session.engine.close(0)
        engine = self._factory()
        if self.session.recorder is not None:
            engine = self.session.recorder.record(engine)
        self.session.attach(engine)
        engine.load("model")

    @property
    def model_name(self) -> str:
        """The main model as the settings name it."""
        return sanitise(self.settings.models.name, keep_newlines=False)

    @staticmethod
    def _note_use(news: list[Event]) -> None:
        """Remembers which models were used, for the order of their list."""
        for event in news:
            if isinstance(event, Loaded):
                from edge_tui.hub import recent_models

                recent_models.remember(event.name)

    def _tick(self) -> None:
        if self._leaving or not self.workbench.is_attached:
            return
        self._tell_of_history()
        # Events are always taken, so that memory stays level; what they change waits for the terminal.
        news = self.session.pump()
        self._note_use(news)
        self._news += news
        if not self._pacer.ready():
            return
        news, self._news = self._news, []
        self.workbench.tick(news, self._sample())
        if self._models is not None and self._models.opened:
            self._models.tick(news)

    def _sample(self) -> Sample | None:
        return self.telemetry.latest() if self.telemetry is not None else None

    def remap(self) -> None:
        """Hears the keys that the settings give to actions."""
        from edge_tui.tui.screens.help import EXTRA

        self.keymap = resolve(self.settings.keys, catalog(EXTRA))
        self._notices += self.keymap.notices
        self.set_keymap(self.keymap.keys)

    # Settings.

    def preferences(self) -> Preferences:
        """The settings as their screen lists and changes them."""
        from edge_tui.tui.preferences import Preferences
        from edge_tui.tui.screens.help import EXTRA

        return Preferences(self.settings, catalog(EXTRA), self.keymap, [theme.AUTO, *self.themes.themes])

    def take_settings(self, settings: Settings, key: str) -> None:
        """Goes on with settings of which one has changed; what can hold at once does."""
        self.settings = settings
        if key.startswith("keys."):
            self.remap()
        elif key == "ui.theme":
            self.choose_theme(settings.ui.theme)
        self.workbench.take_settings(settings, key)

    def choose_theme(self, name: str) -> None:
        """Shows a theme, or the default one where there is none of that name."""
        if name == theme.AUTO:
            name = theme.DEFAULT if self._dark else theme.LIGHT
        self.theme = name if name in self.themes.themes else theme.DEFAULT

    # What the terminal tells.

    async def on_event(self, event: events.Event) -> None:
        """Keys that arrive together take turns; on the way out nobody hears them any more."""
        if isinstance(event, (events.InputEvent, events.Paste)) and not self.screen_stack:
            return
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            if isinstance(event, events.Paste):
                self.app_focus = True  # a terminal may paste while another one has the focus
                event.text = pastes.clean(event.text)
            await self._key_queue.take(event)
        else:
            await super().on_event(event)

    def on_follower(self, event: Follower) -> None:
        if self.screen_stack:
            self._key_queue.returned(event)

    def on_paste(self, event: events.Paste) -> None:
        """No field took it."""
        if sentence := pastes.into_prompt(self.workbench, self.screen is self.workbench, event.text):
            self.notify(sentence, markup=False)

    def on_paste_open(self) -> None:
        self.workbench.say(pastes.PAUSED, "warning")

    def on_paste_refused(self, event: PasteRefused) -> None:
        self.notify(pastes.refusal(event.length), severity="error", markup=False)

    def on_background_known(self, event: BackgroundKnown) -> None:
        self._dark = event.dark
        if self.settings.ui.theme == theme.AUTO:
            self.choose_theme(theme.AUTO)

    def on_clipboard_known(self, event: ClipboardKnown) -> None:
        self._clipboard_said = event.supported

    def on_width_known(self, event: WidthKnown) -> None:
        if event.wide and self.settings.ui.ascii is None and not self.ascii:
            self.ascii = True
            self.workbench.draw_ascii(True)

    def copy_to_clipboard(self, text: str) -> None:
        """Sends a text to the clipboard of the user's own machine."""
        self._clipboard = text
        if self._driver is not None:
            self._driver.write(clipboard.sequence(text, os.environ))

    def clipboard_outlook(self) -> clipboard.Clipboard:
        """What can be expected of it."""
        return clipboard.outlook(os.environ, self._clipboard_said)

    # Files of the user's own.

    def on_strategies_changed(self, event: StrategiesChanged) -> None:
        if not self._leaving:
            self.workbench.take_strategies(event.files)

    def on_themes_changed(self, event: ThemesChanged) -> None:
        gone = [name for name in self.themes.themes if name not in event.themes.themes]
        self.themes = event.themes
        for each in self.themes.themes.values():
            self.register_theme(each)
        if self.theme in gone:
            self.theme = theme.DEFAULT
        for name in gone:
            self.unregister_theme(name)
        for notice in self.themes.notices:
            self.workbench.say(notice, "error")
        if not self.themes.notices:
            self.workbench.say("The themes were read again.", "good")
        # The name is the same, so Textual would see no change.
        self.refresh_css(animate=False)
        self.theme_changed_signal.publish(self.current_theme)

    def on_download_ended(self, event: DownloadEnded) -> None:
        if self._leaving:
            return
        name, progress = event.name, event.progress
        if progress.phase == "done":
            self.workbench.say(f"{name} is here: m lists it.", "good")
        elif progress.phase == "failed":
            self.workbench.say(progress.sentence, "error")
        if self._models is not None and self._models.opened:
            self._models.fetched(name)

    # What is kept.

    def _tell_of_history(self) -> None:
        """Says once that runs are not kept (any more)."""
        problem = self.session.recorder.problem if self.session.recorder is not None else ""
        if problem != self._told:
            self._told = problem
            self._history = None  # a damaged file has made way for another one
            self.notify(sanitise(problem), severity="warning", markup=False, timeout=10)

    def history(self) -> Store | None:
        """The kept runs; None where nothing is kept."""
        if self._history is None and self.session.recorder is not None:
            try:
                self._history = self.session.recorder.reader()
            except (HistoryError, sqlite3.Error, OSError) as error:
                self.workbench.say(f"The history cannot be opened: {error}.", "error")
        return self._history

    @work
    async def _offer_interrupted(self, recorder: Recorder) -> None:
        """Finds what a vanished process left behind, and offers the newest of it once."""
        found = await asyncio.to_thread(_interrupted, recorder)
        if found is None or self._leaving:
            return
        from edge_tui.tui.screens.confirm import ConfirmScreen
        from edge_tui.tui.widgets.run_list import when

        def answer(yes: bool | None) -> None:
            if yes:
                self.workbench.reopen(found.id)

        question = (
            f"{when(found.created)} · {found.strategy} · {found.tokens:,} tokens kept · {found.model}\n\n"
            f"{found.prompt}\n\nOpened, c goes on from its last token. It stays in the history either way."
        )
        self.push_screen(ConfirmScreen("a run was interrupted", question, "open it"), answer)

    # Screens.

    def get_system_commands(self, screen: Screen[object]) -> Iterable[object]:  # type: ignore[override]
        """Everything is in the registry."""
        return ()

    def show_models(self) -> None:
        from edge_tui.tui.screens.models import ModelsScreen

        self._models = ModelsScreen(self.session, self.settings, self.workbench.run_params)
        self.push_screen(self._models)

    def action_show_help(self) -> None:
        """The keys of where the user is, then the others."""
        from edge_tui.tui.screens.help import HelpScreen

        heard: list[Scope] = []
        for node in (self.screen.focused or self.screen).ancestors_with_self:
            for binding in (each for found in node._bindings.key_to_bindings.values() for each in found):
                scope = (binding.id or "").partition(".")[0]
                if scope in SCOPES and scope not in heard:
                    heard.append(scope)
        self.push_screen(HelpScreen(heard, self.keymap.keys))

    def show_settings(self) -> None:
        from edge_tui.tui.screens.settings import SettingsScreen

        self.push_screen(SettingsScreen(self.preferences()))

    def show_themes(self) -> None:
        from edge_tui.tui.screens.themes import ThemesScreen

        screen = ThemesScreen(self.themes, self.settings.ui.theme, self.choose_theme)
        self.push_screen(screen, self._keep_theme)

    def _keep_theme(self, name: str | None) -> None:
        """Writes the chosen theme into the user's file, so that the next start has it too."""
        from edge_tui.config.writer import ConfigError

        if not name or name == self.settings.ui.theme:
            return
        preferences = self.preferences()
        try:
            preferences.set("ui.theme", name)
        except (ConfigError, ValueError) as error:
            self.workbench.say(f"The theme holds until you leave: {error}", "warning")
            return
        self.settings = preferences.settings
        self.workbench.take_settings(preferences.settings, "ui.theme")
        if source := preferences.outranked("ui.theme"):
            self.workbench.say(f"The theme is kept, but {source} wins over your file.", "warning")
        else:
            self.workbench.say(f"The theme is kept in {preferences.settings.file}.", "good")

    def offer_restart(self, event: Died) -> None:
        """The engine's thread is gone; the text is not."""
        from edge_tui.tui.screens.confirm import ConfirmScreen

        self.workbench.say(event.message, "error")

        def answer(yes: bool | None) -> None:
            if yes:
                self._make_engine()

        question = f"{event.message}\n\nPrompt and tokens are kept."
        self.push_screen(ConfirmScreen("the engine stopped", question, "restart"), answer)

    def assign(self, role: str, spec: ModelSpec) -> None:
        """Gives a role to a model and loads it."""
        engine = self.session.engine
        if engine is not None:
            engine.assign(role, spec)
            if role == "amateur" and not self.settings.models.draft:
                engine.assign("draft", spec)
            if role == "model" and self.settings.models.expert:
                engine.assign("expert", spec)  # one of its own; else it is the main model anyway
            engine.load(role)

    # Leaving.

    async def action_quit(self) -> None:
        self._leave(0)

    def _leave(self, code: int) -> None:
        if self._leaving:
            return
        self._leaving = True
        if code and (text := self._unsaved()):
            unsaved.keep(text)  # a signal asked for it, not the user
        self.run_worker(self._close(code), exclusive=False)

    def _stop_looking(self) -> None:
        """Ends downloads and the threads that look at files and at the machine."""
        self.downloads.close()
        for watch in self._watches:
            watch.stop()
        if self.telemetry is not None:
            self.telemetry.stop()

    async def _close(self, code: int) -> None:
        self._stop_looking()
        engine = self.session.engine
        if engine is not None:
            # Waiting in a thread keeps the loop alive; the thread itself ends with `close`. Before there is a
            # model it imports or reads, which nothing stops, and has nothing to give back.
            seconds = CLOSE_SECONDS if self.session.loaded else 0.0
            self.clean = await asyncio.to_thread(engine.close, seconds)
        if self.session.recorder is not None:
            await asyncio.to_thread(self.session.recorder.close, CLOSE_SECONDS)
        self.exit(code, return_code=code)

    async def on_unmount(self) -> None:
        """Whatever ended the app: no thread of its own may outlive it."""
        if self._leaving:
            return
        self._stop_looking()
        if self.session.engine is not None:
            self.clean = await asyncio.to_thread(self.session.engine.close, CLOSE_SECONDS)
            if self.session.recorder is not None:
                await asyncio.to_thread(self.session.recorder.close, CLOSE_SECONDS)

    def _handle_exception(self, error: Exception) -> None:
        self.end(error)

    def end(self, error: BaseException) -> None:
        """Leaves because of what nobody caught: with a log, the prompt kept, and a sentence for the shell."""
        self._return_code = 1
        if self._exception is None:
            self._exception = error  # type: ignore[assignment] # only an Exception says so much to Textual
            self._exception_event.set()
            self._report(error)
        else:
            logs.crash(error)
        self._close_messages_no_wait()

    def _report(self, error: BaseException) -> None:
        prompt = self._unsaved()
        self.crash = crash.report(error, prompt, taken=prompt == self._taken)

    @property
    def asked_to_exit(self) -> bool:
        """Whether the app was told to end, by the user, a signal or a test."""
        return self._exit

    def thread_failed(self, thread: str, error: BaseException) -> None:
        """Says that something in the background has stopped. Called from its thread."""
        if thread == OUTPUT_THREAD:
            self._output_failed(error)
        self.post_message(crash.BackgroundFailed(crash.stopped(thread, error)))

    def _output_failed(self, error: BaseException) -> None:
        """Ends the process: what would be painted next would wait for ever."""
        if lifecycle.terminal_gone():
            self._terminal_gone()
        self._report(error)
        lifecycle.restore(self._driver)
        with contextlib.suppress(OSError):
            print(self.crash, file=sys.__stderr__, flush=True)
        self._break_off(1)

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback of the loop, or a task that nobody awaits, has raised."""
        if (error := context.get("exception")) is not None:
            self.thread_failed("a task in the background", error)
        else:
            loop.default_exception_handler(context)

    def on_background_failed(self, event: crash.BackgroundFailed) -> None:
        self.notify(event.sentence, severity="error", markup=False, timeout=10)

    @contextlib.contextmanager
    def suspend(self) -> Iterator[None]:
        """Lends the terminal; takes it again also after an exception, with which Textual would leave it."""
        problem: Exception | None = None
        with super().suspend():
            try:
                yield
            except Exception as error:
                problem = error
        if problem is not None:
            raise problem

    def is_bound(self, key: str) -> bool:
        """Whether the user has given a key to an action."""
        return any(key in keys.split(",") for keys in self.keymap.keys.values())

    def _unsaved(self) -> str:
        """The text in the prompt that nothing else keeps."""
        if not hasattr(self, "workbench"):
            return ""
        try:
            text = self.workbench.prompt.text
        except Exception as error:  # the prompt itself may be what is broken
            logs.crash(error)
            return ""
        run, recorder = self.session.run, self.session.recorder
        recorded = recorder is not None and not recorder.problem
        if not text.strip() or (recorded and run is not None and run.request.prompt == text):
            return ""
        return text

    def _restore_prompt(self) -> None:
        """Brings back the prompt of a session that crashed, or lost its terminal."""
        text, more = unsaved.take()
        if text:
            self._taken = text
            self.workbench.prompt.put(text + self.workbench.prompt.text)
            waiting = f" {more:,} more: the next starts have them." if more else ""
            self.notify(f"The prompt of a session that ended unasked is back.{waiting}", timeout=10)

    def _terminal_gone(self) -> None:
        """Nothing can be painted or restored any more, and nobody is there to see it."""
        if text := self._unsaved():
            unsaved.keep(text)
        self._break_off(128 + 1)

    def _break_off(self, status: int) -> None:
        """Ends the process at once, with what the run in progress has written kept."""
        recorder = self.session.recorder
        if recorder is not None:
            recorder.leave()
        if self.session.engine is not None:
            self.session.engine.cancel()
        if recorder is not None:
            recorder.close(CLOSE_SECONDS)
        os._exit(status)


def _interrupted(recorder: Recorder) -> Entry | None:
    """The newest run that was cut off and has not been offered yet."""
    from edge_tui.history.restore import recover

    try:
        store = recorder.reader()
        if store is None:
            return None
        recover(store, time.time())
        return store.offer()
    except (HistoryError, sqlite3.Error, OSError):
        # It will be there the next time; this start goes on.
        return None


def _decoder(name: str) -> Decoder:
    try:
        return decoders.find(name)
    except LookupError:
        return decoders.strategies()[0]


def run(app: EdgeApp) -> int:
    """Runs the app and returns its exit status, or ends the process itself where that would take long.

    Raises:
        KeyboardInterrupt: The user interrupted the start; the terminal is as it was.
    """
    code: int | None = None
    try:
        with lifecycle.on_thread_errors(app.thread_failed):
            code = app.run(mouse=app.settings.ui.mouse)
        if not app.asked_to_exit and not app.crash:
            app.end(RuntimeError("the app's event loop has ended"))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # leaving itself failed, or somebody asked for the interpreter's end
        app.end(error)
    finally:
        lifecycle.restore(app._driver)
    # Not before: restoring a terminal that is gone can hang.
    if app.watching is not None:
        app.watching.set()
    status = 1 if app.crash else code if isinstance(code, int) else app.return_code or 0
    if app.crash:
        print(app.crash, file=sys.stderr)
    if app.crash or not app.clean or "torch" in sys.modules:
        # A thread may be inside the driver still, and taking torch down costs most of a second.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
