"""What `/infer` adds to the engine: the same requests headless and over HTTP, in turn, in one measurement."""

from __future__ import annotations

import statistics
import time

import pytest

from edge_tui.engine.events import Finished
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from tests.serve.process import ready
from tests.serve.serving import DEMO

PROMPT = "def main("
PAIRS = 40


@pytest.mark.proof
@pytest.mark.parametrize("tokens", [1, 64, 256])
def test_infer_costs_at_most_3_ms_and_1_percent(tokens: int) -> None:
    import httpx2 as httpx

    engine = LocalEngine(DEMO.specs())

    def headless() -> float:
        began = time.perf_counter()
        engine.submit(Request(PROMPT, strategy="greedy", max_length=tokens))
        while not any(isinstance(event, Finished) for event in engine.poll()):
            time.sleep(0.0005)
        return time.perf_counter() - began

    with ready("--strategy", "greedy", "--device", "cpu") as server:
        client = httpx.Client(base_url=server.url, trust_env=False, timeout=60)

        def served() -> float:
            began = time.perf_counter()
            answer = client.post("/infer", json={"prompt": PROMPT, "max_length": tokens})
            assert answer.status_code == 200
            return time.perf_counter() - began

        for _ in range(5):
            headless(), served()
        # Each pair shares its moment, and who is first takes turns, so that whatever else the machine does
        # counts on both sides.
        pairs = []
        for number in range(PAIRS):
            one, other = (headless, served) if number % 2 else (served, headless)
            times = {one: one(), other: other()}
            pairs.append((times[headless], times[served]))
    assert engine.close(10)
    alone = statistics.median(first for first, _ in pairs)
    more = statistics.median(second - first for first, second in pairs)
    print(f"{tokens} tokens: headless {alone * 1e3:.2f} ms, /infer {more * 1e3:+.2f} ms")
    assert more <= 0.003 + 0.01 * alone
