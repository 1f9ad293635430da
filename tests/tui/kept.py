"""A history to look at: runs at fixed times, written by the engine of the pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.events import Finished, Started, TokenBatch
from edge_tui.engine.port import Message, Request
from edge_tui.history import columns
from edge_tui.history.recorder import Recorder
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.session import Session
from tests.history.runs import LOADED
from tests.tui.engines import WORDS, FixedTelemetry, PictureEngine, ticking

NOON = 1_578_312_000.0
"""2020-01-06 12:00 UTC."""
PROMPTS = (
    "Why is the sky blue?",
    "def fibonacci(n):",
    "Translate into German: the early bird catches the worm",
    "import numpy as np\nimport torch",
    "Write a haiku about the garbage collector",
)
ASKED = ("Why is the sky blue?", "And at sunset?", "And on Mars?")
"""Turns of a conversation."""
_STRATEGIES = ("top_p", "greedy", "beam", "min_p", "contrastive")


def fill(path: Path | None = None) -> list[int]:
    """Writes a few runs; returns their numbers, oldest first."""
    store = Store(path or default_path())
    runs = []
    for i, (prompt, strategy) in enumerate(zip(PROMPTS, _STRATEGIES, strict=True)):
        runs.append(add(store, Request(prompt, strategy=strategy), NOON + 3600 * i, uid=f"{i:016x}"))
    store.execute("UPDATE runs SET state = 'interrupted' WHERE id = ?", (runs[3],))
    store.close()
    return runs


def add(store: Store, request: Request, created: float, uid: str) -> int:
    """Writes a run that answers with `WORDS`."""
    engine = PictureEngine()
    engine.submit(request)
    news = engine.poll()
    run = store.insert_run(uid, created, request)
    batch = columns.join([event for event in news if isinstance(event, TokenBatch)])
    for event in news:
        if isinstance(event, Started):
            store.set_started(run, event, {"model": LOADED}, {"edge-tui": "0.1.0"})
            store.append_chunk(run, 0, batch)
        elif isinstance(event, Finished):
            store.finish_run(run, "finished", "".join(WORDS), event)
    return run


def conversation(turns: int) -> tuple[Message, ...]:
    """Turns of which the last asks."""
    said: list[Message] = []
    for i in range(turns):
        said += [Message("user", PROMPTS[i]), Message("assistant", "".join(WORDS))]
    return tuple(said[:-1])


def keeping(
    engine: PictureEngine | None = None, *, theme: str = "dark", path: Path | None = None, **ui: Any
) -> EdgeApp:
    """An app that keeps what it runs, with every pixel fixed."""
    from dataclasses import replace

    settings = Settings()
    settings = replace(settings, ui=replace(settings.ui, theme=theme, **ui))
    shown = engine or PictureEngine()
    opens: Callable[[], Store] = lambda: Store(path or default_path())  # noqa: E731
    return EdgeApp(
        lambda: shown,
        settings,
        telemetry=FixedTelemetry(),  # type: ignore[arg-type]
        theme_folders=[resources.themes()],
        session=Session(ticking()),
        recorder=lambda: Recorder(opens),
    )


def answered(workbench: Any, exchanges: int) -> bool:
    """Whether the newest of so many exchanges is on the screen with all its tokens."""
    transcript = workbench.pane.transcript
    return (
        len(workbench.conversation.talk.exchanges) == exchanges
        and workbench.conversation.talk.exchanges[-1].run is workbench.session.run
        and transcript is not None
        and transcript is workbench.session.run.transcript
        and not workbench.session.busy
        and workbench.pane.laid_out == len(transcript)
    )
