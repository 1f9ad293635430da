"""Textual's driver for POSIX terminals, with an input of its own: it also asks the terminal about itself."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors

from textual.drivers import linux_driver

from edge_tui.tui import lifecycle
from edge_tui.tui.input_parser import InputParser
from edge_tui.tui.terminal import QUESTIONS, UNWATCH, WATCH, knows_questions

_CHUNK = 4096
_LOOK_SECONDS = 0.1


class TerminalDriver(linux_driver.LinuxDriver):
    """Sends the questions when the app takes the screen; `InputParser` takes the answers out of the input."""

    def start_application_mode(self) -> None:
        # Terminals are shared: an editor, say, may have left this one in a state in which writes fail.
        with contextlib.suppress(OSError):
            os.set_blocking(self.fileno, True)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if knows_questions(os.environ):
            self.write(QUESTIONS + WATCH)
            self.flush()

    def stop_application_mode(self) -> None:
        if knows_questions(os.environ):
            self.write(UNWATCH)
        super().stop_application_mode()

    def _run_input_thread(self) -> None:
        """Without input nobody could even leave: its end is a crash of the app."""
        try:
            self.run_input_thread()
        except Exception as error:
            with contextlib.suppress(RuntimeError):  # the app has left before
                self._loop.call_soon_threadsafe(self._app._handle_exception, error)

    def run_input_thread(self) -> None:
        """Reads, decodes and hands on what is typed, until the app leaves the screen.

        Raises:
            OSError: The terminal is there, and cannot be read.
        """
        parser = InputParser()
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(_LOOK_SECONDS):
                    for message in parser.feed(decode(self._read())):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)

    def _read(self) -> bytes:
        """What has arrived; nothing, after a while, if the terminal has been closed or shares its reader."""
        try:
            if data := os.read(self.fileno, _CHUNK):
                return data
        except BlockingIOError:
            pass
        except OSError:
            if not lifecycle.terminal_gone():
                raise
        self.exit_event.wait(_LOOK_SECONDS)
        return b""
