"""Runs `edge-tui serve`: serves until a signal, drains the queue and closes the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn

from edge_tui.serve.app import ServerApp
from edge_tui.serve.dispatcher import LoopNotifier
from edge_tui.serve.header_limits import LimitedProtocol
from edge_tui.serve.stream import wait_until
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.serve.options import Options

GRACE_SECONDS = 3.0
"""Time for cancelled answers to reach their clients."""
CONNECTIONS = 1000
"""Most connections besides those that wait in the queue; more get a 503."""
CLOSE_SECONDS = 3.0
"""Longest wait for the engine's thread."""


def serve(settings: Settings, notices: Sequence[Notice], options: Options, listener: socket.socket) -> int:
    """Serves until SIGTERM or ctrl-c.

    Requests in flight then have `options.drain` seconds to finish; after that, or at a second signal, they
    are cancelled.

    Returns:
        The exit status: 143 after SIGTERM, 130 after ctrl-c, 1 if the model cannot be loaded.
    """
    from edge_tui.engine.local import LocalEngine

    for notice in notices:
        _print(str(notice))
    notifier = LoopNotifier()
    engine = LocalEngine(settings.specs(), wake=notifier.notify)
    app = ServerApp(engine, notifier, settings, options)
    address = listener.getsockname()
    host = f"[{address[0]}]" if listener.family == socket.AF_INET6 else address[0]
    server = HttpServer(app, options, f"edge-tui serves {settings.models.name} at http://{host}:{address[1]}")
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        if not engine.close(CLOSE_SECONDS):
            # Its thread is inside torch, and interpreter shutdown would crash it.
            logging.shutdown()
            sys.stderr.flush()
            os._exit(server.status or 1)
    return server.status


class HttpServer(uvicorn.Server):
    """Runs uvicorn, and on a signal drains the queue before it exits.

    Args:
        app: The application.
        options: Limits.
        greeting: Printed once signal handlers are installed.
    """

    def __init__(self, app: ServerApp, options: Options, greeting: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_keep_alive=30,
                limit_concurrency=CONNECTIONS + options.queue,
                timeout_graceful_shutdown=int(options.drain + GRACE_SECONDS),
                backlog=2048,
            )
        )
        self.status = 0
        self._app = app
        self._options = options
        self._greeting = greeting
        self._drain_task: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's handlers, which would raise the signal again after the shutdown."""
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch_model())
        # Only the main thread can handle signals.
        in_main_thread = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if in_main_thread else ()
        for number in numbers:
            loop.add_signal_handler(number, self.handle_signal, number)
        if self._greeting:
            _print(self._greeting)
        try:
            yield
        finally:
            watch.cancel()
            for number in numbers:
                loop.remove_signal_handler(number)

    def handle_signal(self, number: int) -> None:
        """Starts to drain the queue; a second signal cancels what is left."""
        self.status = 128 + number
        if self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._app.dispatcher.abort()

    async def _drain(self) -> None:
        """Refuses new requests, waits for those in flight, and cancels those that take too long."""
        dispatcher = self._app.dispatcher
        dispatcher.closing = True
        try:
            await wait_until(dispatcher.is_idle, self._options.drain)
        except TimeoutError:
            dispatcher.abort()
            with suppress(TimeoutError):
                await wait_until(dispatcher.is_idle, GRACE_SECONDS)
        self.should_exit = True

    async def _watch_model(self) -> None:
        """Prints "ready" once the model is loaded; exits if it cannot be and clients cannot change it."""
        dispatcher = self._app.dispatcher
        while not dispatcher.ready:
            if dispatcher.problem and not self._options.manage:
                _print(f"edge-tui: {dispatcher.problem}")
                self.status = 1
                self.should_exit = True
                return
            await asyncio.sleep(0.05)
        for line in dispatcher.roles.loaded["model"].notices:
            _print(line)
        _print("ready")


def _print(line: str) -> None:
    print(sanitise(line, keep_newlines=False), file=sys.stderr, flush=True)
