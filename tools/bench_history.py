"""Measures the history: `python -m tools.bench_history`, or `make bench-history`.

Makes a history of ten thousand runs, opens it on the screen and searches it; records tokens and counts their
bytes; and decodes with the demo pair in turns with and without a recorder, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.bench.goal import Goal
from edge_tui.engine.events import Failed, Finished
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.history.recorder import Recorder
from edge_tui.history.store import Store
from tools.bench_app import print_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.port import Engine

OPEN = Goal("open the history", "s", 0.3, at_least=False)
SEARCH = Goal("search, slowest query", "s", 0.1, at_least=False)
BYTES = Goal("bytes a token on disk", "B", 400, at_least=False)
CPU = Goal("recorder's CPU a token", "µs", 100, at_least=False)
"""Of a thread beside the decoder's; much less where tokens come faster and share a write."""
RATIO = Goal("tok/s with / without", "×", 0.97)
_ANSWER = 250
"""Words of each answer."""
_QUERIES = ("e", "th", "the", "river mountain", "def ", '"the river"', "zzzz", "wolken")


def fill(store: Store, runs: int) -> None:
    """Writes runs whose words are distributed as in natural text: few words often, most seldom."""
    rng = random.Random(5)
    syllables = ["ri", "ver", "mo", "un", "tain", "the", "def", "wol", "ken", "sta", "lor", "en", "qui"]
    words = ["the", "of", "and", "def", "river", "mountain"]
    words += ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(6000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, weights, k=count))

    now = time.time()
    for start in range(0, runs, 500):
        with store.transaction():
            for i in range(start, min(start + 500, runs)):
                run = store.insert_run(f"{i:016x}", now - i, Request(text(12)))
                store.finish_run(run, "finished", text(_ANSWER))


async def time_screen(path: Path, runs: int) -> tuple[list[float], list[float]]:
    """Opens the history's screen and types queries.

    Returns:
        Seconds until the list was there, and until each query's runs were.
    """
    from edge_tui.config.settings import Settings
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.screens.history import HistoryScreen

    class Silent:
        """Stands in for the engine: looking at a list needs no model."""

        def __getattr__(self, name: str) -> Any:
            return lambda *_: [] if name == "poll" else None

    app = EdgeApp(Silent, Settings(), recorder=lambda: Recorder(lambda: Store(path)))
    opening, searching = [], []
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.3)
        store = app.history()
        assert store is not None
        for _ in range(3):
            began = time.perf_counter()
            screen = HistoryScreen(store, {}, app.session)
            await app.push_screen(screen)
            while len(screen.list.entries) < runs:
                await asyncio.sleep(0.001)
            opening.append(time.perf_counter() - began)
            await pilot.pause(0.1)
            screen.dismiss()
            await pilot.pause(0.1)
        screen = HistoryScreen(store, {}, app.session)
        await app.push_screen(screen)
        await pilot.pause(0.2)
        for query in _QUERIES:
            began = time.perf_counter()
            found = await asyncio.to_thread(store.search, query)
            screen.show([entry for entry in screen.entries if entry.id in found])
            searching.append(time.perf_counter() - began)
    return opening, searching


def decode(engine: Engine, tokens: int) -> float:
    """Runs a prompt and returns its tokens per second."""
    engine.submit(Request("def fibonacci(n):\n", strategy="top_p", max_length=tokens, seed=1))
    while True:
        for event in engine.poll():
            if isinstance(event, Failed):
                raise SystemExit(event.message)
            if isinstance(event, Finished):
                return event.tokens_per_second
        time.sleep(0.01)


def compare_with_recorder(path: Path, rounds: int, tokens: int) -> tuple[list[float], float, float]:
    """Decodes in turns with and without a recorder.

    Returns:
        The ratio of each round, bytes of a token in the history's file, and the recorder's own seconds of a
        processor for a token.
    """
    from edge_tui.engine.local import LocalEngine

    class Timed(Recorder):
        """Measures the CPU time of its thread."""

        spent = 0.0

        def _work(self) -> None:
            super()._work()
            self.spent = time.thread_time()

    inner = LocalEngine({"model": ModelSpec("demo/expert")})
    recorder = Timed(lambda: Store(path))
    engine = recorder.record(inner)
    decode(engine, tokens)
    ratios = []
    for turn in range(rounds):
        rates = {}
        for kind in ("off", "on") if turn % 2 else ("on", "off"):
            recorder._engine = engine if kind == "on" else None
            rates[kind] = decode(engine if kind == "on" else inner, tokens)
            time.sleep(0.2)  # so that what is written after a run disturbs none
        ratios.append(rates["on"] / rates["off"])
    recorder._engine = engine
    engine.close()
    recorder.close(5.0)
    store = Store(path)
    count = sum(entry.tokens for entry in store.runs())
    # Not the whole file: vocabularies are stored once for all runs, and an empty file has its tables.
    size = store.rows("SELECT sum(length(data)) FROM chunks")[0][0]
    store.close()
    return ratios, size / count, recorder.spent / count


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_history", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the history")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of decoding; 0 leaves that out")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        store = Store(path)
        fill(store, arguments.runs)
        store.close()
        opening, searching = asyncio.run(time_screen(path, arguments.runs))
        values = [(OPEN, max(opening)), (SEARCH, max(searching))]
        if arguments.rounds:
            ratios, size, cpu = compare_with_recorder(Path(folder) / "tokens.db", arguments.rounds, 512)
            values += [(BYTES, size), (CPU, cpu * 1e6), (RATIO, statistics.median(ratios))]
    status = print_figures(values)
    print("searches:", ", ".join(f"{q!r} {s * 1e3:.0f} ms" for q, s in zip(_QUERIES, searching, strict=True)))
    return status


if __name__ == "__main__":
    sys.exit(main())
