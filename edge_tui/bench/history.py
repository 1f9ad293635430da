"""Measures the history: `python -m edge_tui.bench.history`.

A history of ten thousand runs is made, opened on the screen and searched; tokens are kept and counted in
bytes; and the demo pair decodes in turns with and without a recorder, so that a busy machine slows both.
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

from edge_tui.engine.events import Failed, Finished, TokenBatch
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.history.recorder import Recorder
from edge_tui.history.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.port import Engine

OPEN_LIMIT, SEARCH_LIMIT = 0.3, 0.1
BYTES_LIMIT = 400.0
RATIO_LIMIT = 0.97
CPU_LIMIT = 100.0
"""Of a thread beside the decoder's; much less where tokens come faster and share a write."""
_ANSWER = 250
"""Words of each answer."""
_QUERIES = ("e", "th", "the", "river mountain", "def ", '"the river"', "zzzz", "wolken")


def fill(store: Store, runs: int) -> None:
    """Writes runs whose texts are words of a vocabulary as people have it: few words often, most seldom."""
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


async def opened(path: Path, runs: int) -> tuple[list[float], list[float]]:
    """Opens the history's screen and types queries.

    Returns:
        Seconds until the list was there, and until each query's runs were.
    """
    from edge_tui.config.settings import Settings
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.screens.history import HistoryScreen

    class Silent:
        """No model is needed to look at a list."""

        def __getattr__(self, name: str) -> Any:
            return lambda *_: [] if name == "poll" else None

    app = EdgeApp(Silent, Settings(), recorder=lambda: Recorder(lambda: Store(path)))
    opening, searching = [], []
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.3)
        store = app.history()
        assert store is not None
        for _ in range(3):
            begun = time.perf_counter()
            screen = HistoryScreen(store, {})
            await app.push_screen(screen)
            while len(screen.list.entries) < runs:
                await asyncio.sleep(0.001)
            opening.append(time.perf_counter() - begun)
            await pilot.pause(0.1)
            screen.dismiss()
            await pilot.pause(0.1)
        screen = HistoryScreen(store, {})
        await app.push_screen(screen)
        await pilot.pause(0.2)
        for query in _QUERIES:
            begun = time.perf_counter()
            found = await asyncio.to_thread(store.search, query)
            screen.show([entry for entry in screen.entries if entry.id in found])
            searching.append(time.perf_counter() - begun)
    return opening, searching


def decoded(engine: Engine, tokens: int) -> tuple[float, list[TokenBatch]]:
    """Tokens per second of a run, and its batches."""
    engine.submit(Request("def fibonacci(n):\n", strategy="top_p", max_length=tokens, seed=1))
    batches: list[TokenBatch] = []
    while True:
        for event in engine.poll():
            if isinstance(event, TokenBatch):
                batches.append(event)
            elif isinstance(event, Failed):
                raise SystemExit(event.message)
            elif isinstance(event, Finished):
                return event.tokens_per_second, batches
        time.sleep(0.01)


def recorded(path: Path, rounds: int, tokens: int) -> tuple[list[float], float, float]:
    """Decodes in turns with and without a recorder.

    Returns:
        The ratio of each round, bytes of a token in the history's file, and the recorder's own seconds of a
        processor for a token.
    """
    from edge_tui.engine.local import LocalEngine

    class Timed(Recorder):
        """Tells how long its thread has computed."""

        spent = 0.0

        def _work(self) -> None:
            super()._work()
            self.spent = time.thread_time()

    inner = LocalEngine({"model": ModelSpec("demo/expert")})
    recorder = Timed(lambda: Store(path))
    engine = recorder.record(inner)
    decoded(engine, tokens)
    ratios = []
    for turn in range(rounds):
        rates = {}
        for kind in ("off", "on") if turn % 2 else ("on", "off"):
            recorder._engine = engine if kind == "on" else None
            rates[kind], _ = decoded(engine if kind == "on" else inner, tokens)
            time.sleep(0.2)  # so that what is written after a run disturbs none
        ratios.append(rates["on"] / rates["off"])
    recorder._engine = engine
    engine.close()
    recorder.close(5.0)
    store = Store(path)
    kept = sum(entry.tokens for entry in store.runs())
    # What ids mean is kept once for all runs, and an empty file has its tables.
    size = store.rows("SELECT sum(length(data)) FROM chunks")[0][0]
    store.close()
    return ratios, size / kept, recorder.spent / kept


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the figures; 0 when all hold."""
    parser = argparse.ArgumentParser(prog="python -m edge_tui.bench.history", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the history")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of decoding; 0 leaves that out")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        store = Store(path)
        fill(store, arguments.runs)
        store.close()
        opening, searching = asyncio.run(opened(path, arguments.runs))
        rows = [
            (f"open {arguments.runs:,} runs", max(opening), "s", OPEN_LIMIT, max(opening) <= OPEN_LIMIT),
            ("search, slowest query", max(searching), "s", SEARCH_LIMIT, max(searching) <= SEARCH_LIMIT),
        ]
        if arguments.rounds:
            ratios, size, cpu = recorded(Path(folder) / "tokens.db", arguments.rounds, 512)
            ratio = statistics.median(ratios)
            rows.append(("bytes a token on disk", size, "B", BYTES_LIMIT, size <= BYTES_LIMIT))
            rows.append(("recorder's CPU a token", cpu * 1e6, "µs", CPU_LIMIT, cpu * 1e6 <= CPU_LIMIT))
            rows.append(("tok/s with / without", ratio, "", RATIO_LIMIT, ratio >= RATIO_LIMIT))
    for name, value, unit, limit, good in rows:
        print(f"{name:<24} {value:>9.3f} {unit:<2} limit {limit:<6} {'ok' if good else 'FAILED'}")
    print("searches:", ", ".join(f"{q!r} {s * 1e3:.0f} ms" for q, s in zip(_QUERIES, searching, strict=True)))
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
