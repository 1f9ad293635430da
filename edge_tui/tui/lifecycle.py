"""Handles signals, failing threads and a lost terminal, so that the terminal is left as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT")
CHECK_SECONDS = 1.0


def on_signals(leave: Callable[[int], None]) -> None:
    """Calls `leave(128 + n)` in the event loop on signal `n`; does nothing where loops have no signals.

    Textual itself dies of TERM and HUP without restoring the screen.
    """
    loop = asyncio.get_running_loop()
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, leave, 128 + number)
        except (NotImplementedError, RuntimeError, ValueError):
            return


def watch_terminal(on_close: Callable[[], None]) -> threading.Event:
    """Calls `on_close` from a thread once the terminal is closed. Set the returned event to stop watching.

    The event loop cannot do it: it blocks on writes that a closed terminal never takes.
    """
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(CHECK_SECONDS):
            if terminal_closed():
                on_close()
                return

    threading.Thread(target=watch, name="terminal", daemon=True).start()
    return stop


def terminal_closed() -> bool:
    """Tells whether the terminal that the app was started on has been closed.

    With HUP ignored nobody tells us, and reading a dead terminal spins at full load.
    """
    stream = sys.__stdin__
    try:
        return stream is None or not os.isatty(stream.fileno())
    except (OSError, ValueError):
        return True


@contextmanager
def on_thread_errors(failed: Callable[[str, BaseException], None]) -> Iterator[None]:
    """Calls `failed` with the name and the exception of a thread that ends by one, from that thread.

    Python would print a traceback, which nobody sees while the app has the screen.
    """

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            failed(args.thread.name if args.thread is not None else "", args.exc_value)

    before, threading.excepthook = threading.excepthook, hook
    try:
        yield
    finally:
        threading.excepthook = before


def restore(driver: object) -> None:
    """Resets the terminal where the driver could not do it in order."""
    if (by_hand := getattr(driver, "restore", None)) is not None:
        by_hand()
