"""The app at a terminal with a fault in it: `python -m tests.tui.crashing FAULT`; SIGUSR1 lets it happen.

Its engine imports no torch. With the fault "nothing" it serves tests that ask nothing of an engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_tui import tui
from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.history.recorder import Recorder
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.machine.telemetry import Telemetry
from edge_tui.serve.options import read_key
from edge_tui.tui.app import EdgeApp, run
from edge_tui.tui.driver import TerminalDriver
from edge_tui.tui.screens.help import HelpScreen
from edge_tui.tui.session import Session
from edge_tui.tui.workbench.screen import WorkbenchScreen
from tests.tui.engines import PictureEngine

SECRETS = (
    "hf_C4n4ryC4n4ryC4n4ry",
    os.environ.get("MY_API_KEY", ""),
    "token-of-no-form",
    "key-in-a-file",
    "http://me:c4n4ry@host/",
    "'Authorization': 'Bearer c4n4ry'",
    "api_key='c4n4ry-c4n4ry'",
)
"""What an exception says: a token, a variable's value, the contents of the token's file and of a key's."""


class Boom(Exception):
    """The fault."""


def boom(*_: Any, **__: Any) -> Any:
    raise Boom(f"{' '.join(SECRETS)} \x1b[2J\ud800 first line\nsecond line")


def leave(*_: Any) -> None:
    sys.exit(0)


def cancel(*_: Any) -> None:
    raise asyncio.CancelledError


def _on_mount(app: EdgeApp) -> None:
    EdgeApp.on_mount = boom  # type: ignore[method-assign]


def _start_driver(app: EdgeApp) -> None:
    TerminalDriver.flush = boom  # type: ignore[method-assign]


AT_START: dict[str, Callable[[EdgeApp], None]] = {"mount": _on_mount, "driver": _start_driver}


def _render(app: EdgeApp) -> None:
    app.workbench.view.gauge.render_lines = boom
    app.workbench.view.gauge.refresh()


def _screen(app: EdgeApp) -> None:
    HelpScreen.compose = boom  # type: ignore[method-assign]
    app.action_show_help()


def _key(app: EdgeApp) -> None:
    WorkbenchScreen.on_key = boom  # type: ignore[method-assign]
    app.workbench.pane.focus()
    app.simulate_key("equals_sign")


def _input(app: EdgeApp) -> None:
    TerminalDriver.process_message = boom  # type: ignore[method-assign]
    app.refresh()


def _output(app: EdgeApp) -> None:
    app._driver.write(7)  # type: ignore[union-attr, arg-type]  # noqa: SLF001


def _closing(app: EdgeApp) -> None:
    app.session.engine.close = boom  # type: ignore[union-attr, method-assign]
    app.shutdown.leave(0)


def _unmounting(app: EdgeApp) -> None:
    EdgeApp.on_unmount = boom  # type: ignore[method-assign]
    app.exit(0)


def _stopping(app: EdgeApp) -> None:
    TerminalDriver._disable_line_wrap = boom  # noqa: SLF001
    TerminalDriver._enable_line_wrap = boom  # noqa: SLF001
    app.exit(0)


def _recorder(app: EdgeApp) -> None:
    assert app.session.recorder is not None
    app.session.recorder.append_events(map(boom, [0]))  # type: ignore[arg-type]


def _telemetry(app: EdgeApp) -> None:
    import psutil

    psutil.virtual_memory = boom


FAULTS: dict[str, Callable[[EdgeApp], object]] = {
    "render": _render,
    "screen": _screen,
    "key": _key,
    "input": _input,
    "output": _output,
    "timer": lambda app: app.set_timer(0.01, boom),
    "tick": lambda app: setattr(Session, "pump", boom),
    "worker": lambda app: app.run_worker(boom, thread=True),
    "later": lambda app: app.call_later(boom),
    "cancelled": lambda app: app.call_later(cancel),
    "exit": lambda app: app.set_timer(0.01, leave),
    "closing": _closing,
    "unmounting": _unmounting,
    "stopping": _stopping,
    "telemetry": _telemetry,
    "recorder": _recorder,
    "thread": lambda app: threading.Thread(target=boom, name="some thread").start(),
    "loop": lambda app: asyncio.get_running_loop().call_soon(boom),
}


class Faulty(EdgeApp):
    """Lets its fault happen when it is sent SIGUSR1."""

    CSS_PATH = Path(tui.__file__).with_name("app.tcss")

    def on_ready(self) -> None:
        fault = FAULTS.get(sys.argv[1], lambda app: None)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._let, fault)

    def _let(self, fault: Callable[[EdgeApp], object]) -> None:
        with self._context():
            fault(self)


def main() -> int:
    read_key(os.environ.get("KEY_FILE"))
    app = Faulty(
        PictureEngine,
        Settings(),
        telemetry=Telemetry(interval=0.1),
        theme_folders=[resources.themes()],
        recorder=lambda: Recorder(lambda: Store(default_path())),
    )
    if sys.argv[1] in AT_START:
        AT_START[sys.argv[1]](app)
    return run(app)


if __name__ == "__main__":
    sys.exit(main())
