"""Drives POSIX terminals for Textual, with our own input parser and queries to the terminal."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import termios
from typing import Any, cast

from textual.drivers import linux_driver

from edge_tui.tui import lifecycle
from edge_tui.tui.input_parser import InputParser
from edge_tui.tui.terminal import QUERIES, UNWATCH, WATCH, ignores_unknown_queries

_CHUNK = 4096
_LOOK_SECONDS = 0.1
_RESTORE = (
    "\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?2031l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l"
    "\x1b[?2026l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""Sequences that undo every mode that the app sets."""


class TerminalDriver(linux_driver.LinuxDriver):
    """Sends queries when the app takes the screen; `InputParser` takes the answers out of the input."""

    _attributes: list[Any] | None = None
    """The terminal's attributes before the app took it; None while it has not."""

    def start_application_mode(self) -> None:
        """Notes the terminal's attributes, and sends our queries after Textual's."""
        with contextlib.suppress(termios.error):
            self._attributes = termios.tcgetattr(self.fileno)
        # Terminals are shared: an editor, say, may have left this one in a state in which writes fail.
        with contextlib.suppress(OSError):
            os.set_blocking(self.fileno, True)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if ignores_unknown_queries(os.environ):
            self.write(QUERIES + WATCH)
            self.flush()

    def stop_application_mode(self) -> None:
        """Ends the terminal's reports of its brightness."""
        if ignores_unknown_queries(os.environ):
            self.write(UNWATCH)
        super().stop_application_mode()
        self._attributes = None

    def restore(self) -> None:
        """Resets the terminal directly, where Textual's own way has failed or cannot write."""
        if self._attributes is None or self._file is None:
            return
        self.exit_event.set()
        with contextlib.suppress(OSError):
            os.write(self._file.fileno(), _RESTORE.encode())
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self.fileno, termios.TCSANOW, self._attributes)
        self._attributes = None

    def _run_input_thread(self) -> None:
        """Reports the end of the input as a crash, since the app could not even be left without input."""
        try:
            self.run_input_thread()
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # the app has left before
                self._loop.call_soon_threadsafe(self._app._handle_exception, cast("Exception", error))

    def run_input_thread(self) -> None:
        """Reads and decodes the input, and posts its messages, until the app leaves the screen.

        Raises:
            OSError: The terminal is there, and cannot be read.
        """
        parser = InputParser(is_bound=getattr(self._app, "is_bound", None))
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
        """Reads the input; no bytes, after a while, if the terminal is closed or shares its reader."""
        try:
            if data := os.read(self.fileno, _CHUNK):
                return data
        except BlockingIOError:
            pass
        except OSError:
            if not lifecycle.terminal_closed():
                raise
        self.exit_event.wait(_LOOK_SECONDS)
        return b""
