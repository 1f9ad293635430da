"""`/infer` adds little to the engine: the same requests to one engine, past the server and through it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2 as httpx
import pytest

from tests.serve.shared_engine_server import PROMPT


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("tokens", "pairs"), [(1, 400), (64, 300), (256, 150)])
def test_infer_costs_at_most_3_ms_and_1_percent(tokens: int, pairs: int) -> None:
    with _shared_engine_server() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout
        client = httpx.Client(base_url=answers.readline().strip(), trust_env=False, timeout=60)

        def headless() -> float:
            print(tokens, file=asks, flush=True)
            return float(answers.readline())

        def served() -> float:
            began = time.perf_counter()
            answer = client.post("/infer", json={"prompt": PROMPT, "max_length": tokens})
            assert answer.status_code == 200
            return time.perf_counter() - began

        for _ in range(5):
            headless(), served()
        # Each pair shares its moment, and who is first takes turns, so that whatever else the machine does
        # counts on both sides.
        taken = []
        for number in range(pairs):
            one, other = (headless, served) if number % 2 else (served, headless)
            times = {one: one(), other: other()}
            taken.append((times[headless], times[served]))
    alone = statistics.median(first for first, _ in taken)
    more = statistics.median(second - first for first, second in taken)
    print(f"{tokens} tokens: headless {alone * 1e3:.2f} ms, /infer {more * 1e3:+.2f} ms")
    assert more <= 0.003 + 0.01 * alone


@contextmanager
def _shared_engine_server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.serve.shared_engine_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield process
        process.terminate()
