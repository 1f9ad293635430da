"""Ends the app: after a quit, a signal, an exception, or the loss of its terminal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from edge_tui.tui import crash, lifecycle, prompt_rescue
from edge_tui.util import logs

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from textual.app import App

    from edge_tui.tui.session import Session

CLOSE_SECONDS = 0.8
"""Seconds that a quit waits for the engine, and for the recorder; a quit takes a second at most."""
OUTPUT_THREAD = "textual-output"
"""Textual's name for the thread that writes to the terminal."""


class Shutdown:
    """Ends the app once, with the engine closed, the run recorded and the prompt saved.

    Args:
        app: The app.
        session: Engine, recorder and run.
        prompt: Gives the text of the prompt's field.
        stop_watching: Ends the downloads and the threads that watch files and the machine.
    """

    def __init__(
        self,
        app: App[int],
        session: Session,
        prompt: Callable[[], str],
        stop_watching: Callable[[], None],
    ) -> None:
        self._app = app
        self._session = session
        self._prompt = prompt
        self._stop_watching = stop_watching
        self._terminal_watch: threading.Event | None = None
        self.leaving = False
        """True once the app is on its way out."""
        self.crash = ""
        """Sentence for the shell about the exception that ended the app; "" without one."""
        self.clean = True
        """False where the engine's thread did not end in time, so that the process must not wait for it."""
        self._restored = ""
        """Prompt of an earlier session that this one began with."""

    # Asked for, or by a signal.

    def leave(self, code: int) -> None:
        """Begins to leave with an exit status; a second call does nothing."""
        if self.leaving:
            return
        self.leaving = True
        if code and (text := self._unsaved_prompt()):
            prompt_rescue.save(text)  # a signal asked for it, not the user
        self._app.run_worker(self._close(code), exclusive=False)

    async def _close(self, code: int) -> None:
        # Before there is a model the engine's thread imports or reads, which nothing stops.
        await self._close_session(CLOSE_SECONDS if self._session.loaded else 0.0)
        self._app.exit(code, return_code=code)

    async def unmounted(self) -> None:
        """Closes everything after an end that `leave` did not begin: no thread may outlive the app."""
        if not self.leaving:
            await self._close_session(CLOSE_SECONDS)

    async def _close_session(self, seconds: float) -> None:
        self._stop_watching()
        # Waiting in a thread keeps the event loop alive.
        if self._session.engine is not None:
            self.clean = await asyncio.to_thread(self._session.engine.close, seconds)
        if self._session.recorder is not None:
            await asyncio.to_thread(self._session.recorder.close, CLOSE_SECONDS)

    # Exceptions.

    def fail(self, error: BaseException) -> None:
        """Leaves because of an exception that nothing caught: with a log, a saved prompt and a sentence."""
        app = self._app
        app._return_code = 1
        if app._exception is None:
            app._exception = error  # type: ignore[assignment] # only an Exception says so much to Textual
            app._exception_event.set()
            self._report(error)
        else:
            logs.write_crash(error)
        app._close_messages_no_wait()

    def _report(self, error: BaseException) -> None:
        prompt = self._unsaved_prompt()
        self.crash = crash.report(error, prompt, restored=prompt == self._restored)

    def thread_failed(self, thread: str, error: BaseException) -> None:
        """Reports a thread that an exception has ended. Called from that thread."""
        if thread == OUTPUT_THREAD:
            self._output_failed(error)
        self._app.post_message(crash.BackgroundFailed(crash.thread_sentence(thread, error)))

    def _output_failed(self, error: BaseException) -> None:
        """Ends the process: the next paint would wait for ever."""
        if lifecycle.terminal_closed():
            self._terminal_lost()
        self._report(error)
        lifecycle.restore(self._app._driver)
        with contextlib.suppress(OSError):
            print(self.crash, file=sys.__stderr__, flush=True)
        self._break_off(1)

    def _task_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Reports the exception of a callback, or of a task that nothing awaits."""
        if (error := context.get("exception")) is not None:
            self.thread_failed("a task in the background", error)
        else:
            loop.default_exception_handler(context)

    # The terminal.

    def watch(self) -> None:
        """Watches the terminal, and the event loop's background tasks. Call it in the event loop."""
        self._terminal_watch = lifecycle.watch_terminal(self._terminal_lost)
        asyncio.get_running_loop().set_exception_handler(self._task_failed)

    def _terminal_lost(self) -> None:
        """Saves the prompt and ends the process: nothing can be painted or restored any more."""
        if text := self._unsaved_prompt():
            prompt_rescue.save(text)
        self._break_off(128 + 1)

    def _break_off(self, status: int) -> None:
        """Ends the process at once; the recorder stores the run in progress first."""
        recorder = self._session.recorder
        if recorder is not None:
            recorder.begin_exit()
        if self._session.engine is not None:
            self._session.engine.cancel()
        if recorder is not None:
            recorder.close(CLOSE_SECONDS)
        os._exit(status)

    # The prompt.

    def _unsaved_prompt(self) -> str:
        """Returns the text in the prompt that no recorder has stored."""
        try:
            text = self._prompt()
        except Exception as error:  # the prompt itself may be what is broken
            logs.write_crash(error)
            return ""
        run, recorder = self._session.run, self._session.recorder
        recorded = recorder is not None and not recorder.problem
        if not text.strip() or (recorded and run is not None and run.request.prompt == text):
            return ""
        return text

    def restore_prompt(self) -> tuple[str, int]:
        """Takes the saved prompt of an earlier session, and counts those that wait for later starts."""
        self._restored, waiting = prompt_rescue.take()
        return self._restored, waiting

    # The process.

    def finish(self, code: int | None) -> int:
        """Returns the exit status of an app that has ended, or exits where a thread would hold that up.

        Args:
            code: Result of the app.
        """
        if self._terminal_watch is not None:
            self._terminal_watch.set()
        status = 1 if self.crash else code if isinstance(code, int) else self._app.return_code or 0
        if self.crash:
            print(self.crash, file=sys.stderr)
        if self.crash or not self.clean or "torch" in sys.modules:
            # A thread may be inside the driver still, and taking torch down costs most of a second.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        return status
