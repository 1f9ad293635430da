"""Textual's driver for POSIX terminals, which also asks the terminal about itself and listens."""

from __future__ import annotations

import os

from textual.drivers import linux_driver

from edge_tui.tui.terminal import QUESTIONS, UNWATCH, WATCH, Replies, knows_questions


class TerminalDriver(linux_driver.LinuxDriver):
    """Sends the questions when the app takes the screen; `Replies` takes the answers out of the input."""

    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if knows_questions(os.environ):
            self.write(QUESTIONS + WATCH)
            self.flush()

    def stop_application_mode(self) -> None:
        if knows_questions(os.environ):
            self.write(UNWATCH)
        super().stop_application_mode()

    def run_input_thread(self) -> None:
        # The driver makes its parser itself and has no place to give it another.
        linux_driver.XTermParser = Replies  # type: ignore[attr-defined]
        super().run_input_thread()
