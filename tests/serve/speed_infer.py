"""Measures what `/infer` adds to the engine: `python -m tests.serve.speed_infer`.

The same requests go to one engine, past the server and through it. Each pair shares its moment, and who is
first takes turns, so that whatever else the machine does counts on both sides.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import httpx2 as httpx

from tests.serve.shared_engine_server import PROMPT

REQUESTS = ((1, 400), (64, 300), (256, 150))
"""Tokens of a request, and how many pairs."""


def main() -> None:
    """Prints, for each length, the median time past the server and what the server adds."""
    command = [sys.executable, "-m", "tests.serve.shared_engine_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin, process.stdout
        client = httpx.Client(base_url=answers.readline().strip(), trust_env=False, timeout=60)

        def headless(tokens: int) -> float:
            print(tokens, file=asks, flush=True)
            return float(answers.readline())

        def served(tokens: int) -> float:
            began = time.perf_counter()
            client.post("/infer", json={"prompt": PROMPT, "max_length": tokens}).raise_for_status()
            return time.perf_counter() - began

        for tokens, pairs in REQUESTS:
            for _ in range(5):
                headless(tokens), served(tokens)
            taken = []
            for number in range(pairs):
                one, other = (headless, served) if number % 2 else (served, headless)
                times = {one: one(tokens), other: other(tokens)}
                taken.append((times[headless], times[served]))
            alone = statistics.median(first for first, _ in taken)
            more = statistics.median(second - first for first, second in taken)
            print(f"{tokens} tokens: headless {alone * 1e3:.2f} ms, /infer {more * 1e3:+.2f} ms", flush=True)
        process.terminate()


if __name__ == "__main__":
    main()
