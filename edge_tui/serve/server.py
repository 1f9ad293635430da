"""`edge-tui serve`: binds, says where it listens, serves until a signal, and leaves in order."""

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

from edge_tui.serve.app import Server
from edge_tui.serve.header_limits import Bounded
from edge_tui.serve.loop_notifier import LoopNotifier
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.serve.options import Options

GRACE_SECONDS = 3.0
"""What aborted answers get to reach their clients."""
CONNECTIONS = 1000
"""Connections besides those that wait; more are turned away before they cost anything."""
CLOSE_SECONDS = 3.0
"""How long the engine's thread is waited for."""


def serve(settings: Settings, notices: Sequence[Notice], options: Options, listener: socket.socket) -> int:
    """Serves until SIGTERM or ctrl-c.

    Work in flight then has `options.drain` seconds to finish; what is left is cut short. A second signal cuts
    it short at once.

    Returns:
        The exit status: 143 after SIGTERM, 130 after ctrl-c, 1 if the model cannot be loaded.
    """
    from edge_tui.engine.local import LocalEngine

    for notice in notices:
        _say(str(notice))
    bell = LoopNotifier()
    engine = LocalEngine(settings.specs(), wake=bell.ring)
    app = Server(engine, bell, settings, options)
    address = listener.getsockname()
    host = f"[{address[0]}]" if listener.family == socket.AF_INET6 else address[0]
    loop = Loop(app, options, f"edge-tui serves {settings.models.name} at http://{host}:{address[1]}")
    try:
        loop.run(sockets=[listener])
    finally:
        listener.close()
        if not engine.close(CLOSE_SECONDS):
            # Its thread is inside torch still, which does not bear being taken down around it.
            logging.shutdown()
            sys.stderr.flush()
            os._exit(loop.status or 1)
    return loop.status


class Loop(uvicorn.Server):
    """uvicorn, ended by our rules.

    Args:
        app: The application.
        options: Limits.
        greeting: Said once signals are heeded.
    """

    def __init__(self, app: Server, options: Options, greeting: str = "") -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Bounded,
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
        self._leaving: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server in order; uvicorn would raise them anew once it has stopped."""
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch_model())
        # Only the main thread hears signals.
        heard = (signal.SIGTERM, signal.SIGINT) if _in_main_thread() else ()
        for number in heard:
            loop.add_signal_handler(number, self.leave, number)
        if self._greeting:
            _say(self._greeting)
        try:
            yield
        finally:
            watch.cancel()
            for number in heard:
                loop.remove_signal_handler(number)

    def leave(self, number: int) -> None:
        """A signal came: finishes what there is; a second one cuts it short."""
        self.status = 128 + number
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._app.dispatcher.abort()

    async def _drain(self) -> None:
        """Takes nothing new, finishes what there is, cuts short what takes too long."""
        dispatcher = self._app.dispatcher
        dispatcher.closing = True
        try:
            async with asyncio.timeout(self._options.drain):
                await dispatcher.drained()
        except TimeoutError:
            dispatcher.abort()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await dispatcher.drained()
        self.should_exit = True

    async def _watch_model(self) -> None:
        """A server whose model cannot be loaded is of no use, unless somebody may load another one."""
        dispatcher = self._app.dispatcher
        while not dispatcher.ready:
            if dispatcher.problem and not self._options.manage:
                _say(f"edge-tui: {dispatcher.problem}")
                self.status = 1
                self.should_exit = True
                return
            await asyncio.sleep(0.05)
        for line in dispatcher.roles.loaded["model"].notices:
            _say(line)
        _say("ready")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _say(line: str) -> None:
    print(sanitise(line, keep_newlines=False), file=sys.stderr, flush=True)
