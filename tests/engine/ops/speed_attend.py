"""Measures decode attention at true shapes: `python -m tests.engine.ops.speed_attend [--seconds 170]`.

Each figure is one call's share of a replayed graph of many, over more keys and values than the GPU's cache
holds where that is possible. Tilings are compared on one row, then the best one's cut into pieces; the
default is timed for more rows, for beams, and without dependent launch. With `OUT` set, all of it goes to
`$OUT/attend.json`. When time runs out, what is left is skipped and named.

Kernels are compiled ahead by several processes, into Triton's cache on disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from edge_tui.bench.roofline import read_bandwidth
from edge_tui.engine.ops.triton import attend as attend_triton
from edge_tui.engine.ops.triton import launch
from edge_tui.engine.ops.triton.attend import Scratch, Tuning

DTYPE = torch.bfloat16
DISTINCT = 200e6
"""Bytes of keys and values that one replay reads, if enough calls fit."""
MOST_CALLS = 256
LENGTHS = (64, 256, 1024, 4096)
CAPACITY = 4224
TILINGS = tuple(
    Tuning(block=block, warps=warps, stages=stages)
    for block, warps, stages in (
        (64, 4, 3),
        (32, 4, 3),
        (32, 2, 3),
        (64, 2, 3),
        (64, 8, 2),
        (128, 4, 2),
        (128, 8, 2),
    )
)
CUTS = [(least, load) for least in (1, 2, 4) for load in (0.5, 1.0, 2.0)]
"""Fewest tiles of a piece, and programs a multiprocessor."""


@dataclass(frozen=True)
class Shape:
    """Heads of a model, and the call."""

    name: str
    heads: int
    kv_heads: int
    d: int
    k: int = 1
    rows: int = 1
    forked: bool = False


MODELS = (
    Shape("qwen2-0.5b", 14, 2, 64),
    Shape("llama-3.2-1b", 32, 8, 64),
    Shape("qwen2-7b", 28, 4, 128),
    Shape("llama-2-7b", 32, 32, 128),
    Shape("gemma-2-2b", 8, 4, 256),
    Shape("gemma-3-1b", 4, 1, 256),
)


class Bench:
    """Arguments for one shape, with keys and values for many calls."""

    def __init__(self, shape: Shape, capacity: int, calls: int) -> None:
        s = self.shape = shape
        self.capacity = capacity
        tokens, width = s.rows * s.k, 2 * s.kv_heads
        options: dict[str, Any] = {"device": "cuda", "dtype": DTYPE}
        rows = 1 if s.forked else s.rows
        self.roots = torch.randn(calls, rows, width, capacity, s.d, **options)
        self.forks = torch.randn(calls, s.rows, width, 512, s.d, **options) if s.forked else None
        self.base = torch.zeros(s.rows, dtype=torch.int64, device="cuda") if s.forked else None
        self.owner = None
        if s.forked:
            self.owner = torch.randint(s.rows, (s.rows, 512), dtype=torch.int32, device="cuda")
        self.length = torch.zeros(s.rows, dtype=torch.int64, device="cuda")
        self.cos, self.sin = torch.rand(2, capacity, s.d, **options)
        self.qkv = torch.randn(tokens, (s.heads + width) * s.d, **options)
        self.out = torch.empty(tokens, s.heads * s.d, **options)
        self.processors = torch.cuda.get_device_properties("cuda").multi_processor_count

    def call(self, i: int, scratch: Scratch, tuning: Tuning | None) -> None:
        attend_triton.attend(
            self.qkv,
            self.roots[i],
            None if self.forks is None else self.forks[i],
            self.base,
            self.owner,
            self.length,
            self.cos,
            self.sin,
            self.out,
            scratch,
            heads=self.shape.heads,
            kv_heads=self.shape.kv_heads,
            k=self.shape.k,
            tuning=tuning,
        )

    def time(self, length: int, tuning: Tuning | None = None, load: float = 1.0) -> float:
        """Microseconds of one call."""
        s = self.shape
        self.length.fill_(length)
        if self.base is not None:
            self.base.fill_(max(0, length - 200))
        scratch = Scratch(s.rows, s.k, s.heads, s.d, self.qkv.device, int(load * self.processors))
        calls = len(self.roots)
        self.call(0, scratch, tuning)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(max(calls, 32)):
                self.call(i % calls, scratch, tuning)
        graph.replay()
        times = []
        for _ in range(5):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / max(calls, 32))
        return statistics.median(times)

    def bytes(self, length: int) -> int:
        """Read by one call, if every key is read once."""
        s = self.shape
        shared = max(0, length - 200) if s.forked else 0
        return (shared + (length - shared) * s.rows) * 2 * s.kv_heads * s.d * DTYPE.itemsize


def bench(shape: Shape, length: int) -> Bench:
    """As many calls' keys and values as exceed the cache, within reason."""
    one = Bench(shape, CAPACITY, 1).bytes(length)
    size = 2 * shape.kv_heads * CAPACITY * shape.d * DTYPE.itemsize * shape.rows
    calls = min(MOST_CALLS, max(2, round(DISTINCT / one)), max(2, int(16e9 / size)))
    return Bench(shape, CAPACITY, calls)


def compile_ahead(job: tuple[Shape, Tuning | None, bool]) -> None:
    """Puts one kernel into the cache on disk."""
    shape, tuning, dependent = job
    launch.dependent_launch = dependent
    small = Bench(shape, CAPACITY, 1)
    with suppress(Exception):  # one that does not fit the GPU is named when it is timed
        small.call(0, Scratch(shape.rows, shape.k, shape.heads, shape.d, small.qkv.device), tuning)
        torch.cuda.synchronize()


def jobs() -> list[tuple[Shape, Tuning | None, bool]]:
    shapes = [replace(model, k=k) for model in MODELS for k in (1, 5)]
    work: list[tuple[Shape, Tuning | None, bool]] = [(s, t, True) for s in shapes for t in TILINGS]
    work += [(s, None, dependent) for s in shapes for dependent in (True, False)]
    return work + [(replace(s, rows=4, forked=True), None, True) for s in MODELS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=170.0)
    begin, limit = time.monotonic(), parser.parse_args().seconds
    found: list[dict[str, Any]] = []
    skipped: list[str] = []
    workers = min(12, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(compile_ahead, jobs(), chunksize=4))
    bandwidth = read_bandwidth("cuda")
    name = torch.cuda.get_device_name()
    print(f"{name}: {bandwidth / 1e12:.2f} TB/s; compiled in {time.monotonic() - begin:.0f} s", flush=True)

    def note(b: Bench, length: int, what: str, tuning: Tuning | None, load: float = 1.0) -> float:
        try:
            us = b.time(length, tuning, load)
        except Exception as error:  # too much shared memory, for one
            print(f"{b.shape.name:14} {what}: {str(error).splitlines()[0][:80]}")
            return float("inf")
        part = b.bytes(length) / bandwidth / us * 1e6
        used = None if tuning is None else asdict(tuning)
        row = {**asdict(b.shape), "length": length, "what": what, "us": us, "of_bandwidth": part}
        found.append({**row, "tuning": used, "load": load})
        return us

    def show(b: Bench, length: int, what: str, us: float) -> None:
        s, part = b.shape, b.bytes(length) / bandwidth / us * 1e6
        print(
            f"{s.name:14} {length:5} {s.rows:2} rows, {s.k} new  {us:7.2f} µs {part:6.1%}  {what}", flush=True
        )

    def default() -> None:
        for model in MODELS:
            for length in LENGTHS:
                for rows, k, forked in (
                    (1, 1, False),
                    (4, 1, False),
                    (8, 1, False),
                    (1, 5, False),
                    (4, 1, True),
                ):
                    b = bench(replace(model, rows=rows, k=k, forked=forked), length)
                    show(b, length, "beams" if forked else "", note(b, length, "default", None))
                b = bench(model, length)
                launch.dependent_launch = False
                show(b, length, "in turn", note(b, length, "in turn", None))
                launch.dependent_launch = True

    def sweep(shape: Shape, length: int) -> None:
        b = bench(shape, length)
        tilings = {t: note(b, length, "tiling", t) for t in TILINGS}
        best = sorted(tilings, key=lambda t: tilings[t])[:3]
        cuts = {
            (t, least, load): note(b, length, "cut", replace(t, least=least), load)
            for t in best
            for least, load in CUTS
        }
        for (t, least, load), us in sorted(cuts.items(), key=lambda item: item[1])[:3]:
            what = f"block {t.block}, {t.warps} warps, {t.stages} stages, least {least}, load {load}"
            show(b, length, f"best: {what}", us)

    tasks: dict[str, Callable[[], None]] = {"defaults": default}
    for model, k, length in product(MODELS, (1, 5), LENGTHS):
        tasks[f"{model.name}, {k} new at {length}"] = partial(sweep, replace(model, k=k), length)
    for title, task in tasks.items():
        if time.monotonic() - begin > limit:
            skipped.append(title)
            continue
        task()
        if out := os.environ.get("OUT"):
            result = {"device": name, "bandwidth": bandwidth, "found": found}
            (Path(out) / "attend.json").write_text(json.dumps(result, indent=1))
    if skipped:
        print("no time left for:", "; ".join(skipped))


if __name__ == "__main__":
    main()
