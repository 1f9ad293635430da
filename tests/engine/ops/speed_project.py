"""Measures the matrix kernels at true shapes: `python -m tests.engine.ops.speed_project [--seconds 230]`.

For several tokens, cuts for tensor cores are measured beside the plain cores' best in the table, and all cuts
with `--full`.

Every product of some models is timed under several cuts, as replays of a graph over more copies of the
matrix than the GPU's cache holds, dependent launches included. Then whole steps without attention are timed
with the best cuts, with and without dependent launch. The last lines are the cuts for `project_configs`.
With `OUT` set, all of it goes to `$OUT/project.json`.

Kernels are compiled ahead by several processes, into Triton's cache on disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, astuple
from math import ceil
from pathlib import Path

import torch

from edge_tui.bench.roofline import read_bandwidth
from edge_tui.engine.models.fused_cuda import MAX_TOKENS
from edge_tui.engine.ops.code_groups import pack
from edge_tui.engine.ops.group_form import NF4, GroupForm
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.triton.project_configs import Config, choose
from tests.engine.ops.product_shapes import MODELS, Model, Product
from tests.engine.ops.random_groups import random_groups

DTYPE = torch.bfloat16
DISTINCT = 400e6
"""Bytes that the copies of a matrix take together, at least: several times the cache."""
GROUPS = {
    "group4": GroupForm(4, 32),
    "group4m": GroupForm(4, 32, "own", outer=True),
    "group8": GroupForm(8, 32),
    "group8m": GroupForm(8, 16, "own", outer=True),
    "nf4": NF4,
}
"""Codes in groups as Q4_0, Q4_K and Q8_0 have them, Q4_K above Q6_K, and NF4."""
BYTES = {"plain": 2.0, "int8": 1.0}
BYTES |= {kind: form.nbytes(1, 2048) / 2048 for kind, form in GROUPS.items()}


def candidates(kind: str, tokens: int, product: Product) -> Iterator[Config]:
    """Cuts worth trying."""
    small = product.rows < 6000
    if kind in GROUPS:
        yield from tensor_candidates(kind, product)
        return
    if tokens > 1:
        for n in (2, 4, 8) if small else (4, 8, 16):
            for k, warps in ((256, 1), (512, 2), (1024, 4)):
                if n * tokens <= 64:
                    yield Config(n, k, warps)
        return
    sizes = {"plain": (1, 2, 4), "int8": (2, 4, 8)}[kind]
    for n in sizes if small else [2 * size for size in sizes[1:]]:
        tiles = [(512, 1), (512, 2), (1024, 2), (1024, 4)]
        if product.columns % 256 == 0 and product.columns % 512:
            tiles.append((256, 1))
        if product.columns > 1024:
            tiles += [(2048, 4), (2048, 8)]
        if product.columns > 4096 and small:
            tiles += [(4096, 8), (8192, 8)]
        for k, warps in tiles:
            yield Config(max(n, 1 + bool(product.gate)), k, warps)


def tensor_candidates(kind: str, product: Product) -> Iterator[Config]:
    """Cuts for tensor cores worth trying, the same for any number of tokens."""
    if kind in GROUPS:
        # For one token two chunks of a warp belong together.
        small, chunk = product.rows < 6000, GROUPS[kind].chunk
        for n in (16, 32) if small else (16, 32, 64):
            for warps in (4, 8, 16) if small else (1, 2, 4, 8):
                for chunks in (1, 2, 4):
                    block = chunks * warps * chunk
                    if n * chunks <= 64 and block < 2 * product.columns:
                        yield Config(n, block, warps, tensor=True)
                        if n == 16 and small and block < product.columns:
                            yield Config(n, block, warps, tensor=True, ahead=2)
        return
    unit = 128 if kind == "plain" else 256  # a warp's columns of a tile
    if product.rows < 6000:
        cuts = [(16, unit, 4), (16, unit, 8), (16, unit // 2, 8), (16, unit // 2, 16)]
        if product.columns > 4096:
            cuts.append((32, unit // 2, 8))
    else:
        cuts = [(16, unit, 1), (16, unit // 2, 1), (16, unit, 2), (16, unit, 4)]
        cuts += [(32, unit // 2, 1), (32, unit // 2, 2), (32, unit // 2, 4)]
    for n, k, warps in cuts:
        if k * warps < 2 * product.columns:
            yield Config(n, k * warps, warps, tensor=True)


def listed(text: str) -> list[str]:
    return text.split(",")


class Bench:
    """Matrices of one model and kind, and what runs over them."""

    def __init__(self, model: Model, kind: str) -> None:
        self.model = model
        self.kind = kind
        products = model.products(kind)
        self.copies = {product: self._copies(product) for product in products}
        self.gain = {
            k: torch.ones(k, device="cuda", dtype=DTYPE) for k in {product.columns for product in products}
        }

    def _copies(self, product: Product) -> list[PackedMatrix]:
        size = product.rows * product.columns * BYTES[self.kind]
        return [random_matrix(self.kind, product) for _ in range(max(2, ceil(DISTINCT / size)))]

    def buffers(self, product: Product, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(tokens, product.columns, device="cuda").to(DTYPE)
        width = product.rows // 2 if product.gate else product.rows
        out = torch.zeros(tokens, width, device="cuda", dtype=torch.float32 if product.wide else DTYPE)
        return x, out

    def time(self, product: Product, tokens: int, config: Config) -> float:
        """Seconds of one product."""
        x, out = self.buffers(product, tokens)
        copies = self.copies[product]
        repeats = max(len(copies), 12)

        def work() -> None:
            for i in range(repeats):
                run(product, x, copies[i % len(copies)], out, self.gain[product.columns], config)

        return replayed(work) / repeats

    def step(self, tokens: int, config: Callable[[Product], Config]) -> float:
        """Seconds of all products of a step, one after the other."""
        buffers = {product: self.buffers(product, tokens) for product in self.copies}

        def work() -> None:
            for i in range(self.model.layers):
                for product in self.model.layer():
                    copies = self.copies[product]
                    x, out = buffers[product]
                    run(product, x, copies[i % len(copies)], out, self.gain[product.columns], config(product))
            head = self.model.head()
            if head in self.copies:
                x, out = buffers[head]
                run(head, x, self.copies[head][0], out, self.gain[head.columns], config(head))

        return replayed(work)

    def step_bytes(self) -> float:
        layer, head = self.model.layer(), self.model.head()
        weights = self.model.layers * sum(product.rows * product.columns for product in layer)
        return BYTES[self.kind] * (weights + (head.rows * head.columns if head in self.copies else 0))


def random_matrix(kind: str, product: Product) -> PackedMatrix:
    rows, columns = product.rows, product.columns
    if form := GROUPS.get(kind):
        return pack(random_groups(form, rows, columns, device="cuda"))
    if kind == "plain":
        weight = torch.empty(rows, columns, device="cuda", dtype=DTYPE).normal_(std=columns**-0.5)
        return PackedMatrix(kind, weight, None, None, rows, columns)
    codes = torch.randint(-127, 128, (rows, columns), device="cuda", dtype=torch.int8)
    return PackedMatrix(kind, codes, torch.rand(rows, device="cuda") / columns**0.5, None, rows, columns)


def run(
    product: Product,
    x: torch.Tensor,
    packed: PackedMatrix,
    out: torch.Tensor,
    gain: torch.Tensor,
    config: Config,
) -> None:
    from edge_tui.engine.ops.triton import project as project_triton

    project_triton.project(
        x,
        packed,
        out,
        norm=gain if product.norm else None,
        eps=1e-6,
        gate=product.gate,
        residual=out if product.residual else None,
        config=config,
    )


def replayed(work: Callable[[], None], rounds: int = 7) -> float:
    """Median seconds of a captured `work`."""
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def compile_ahead(kind: str, product: Product, tokens: int, config: Config, overlap: bool = True) -> None:
    """Builds one kernel by running it on a few rows of the matrix."""
    from edge_tui.engine.ops.triton import launch

    launch.dependent_launch = overlap
    few = Product(product.name, 64, *astuple(product)[2:])
    gain = torch.ones(few.columns, device="cuda", dtype=DTYPE)
    x = torch.zeros(tokens, few.columns, device="cuda", dtype=DTYPE)
    out = torch.zeros(tokens, 64, device="cuda", dtype=torch.float32 if few.wide else DTYPE)
    run(few, x, random_matrix(kind, few), out, gain, config)
    torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=listed, default=[model.name for model in MODELS])
    parser.add_argument("--kinds", type=listed, default=list(BYTES))
    parser.add_argument("--tokens", type=lambda text: [int(t) for t in listed(text)], default=[1, 4, 8, 5])
    parser.add_argument("--full", action="store_true", help="several tokens on plain cores anew, too")
    parser.add_argument("--seconds", type=float, default=230.0, help="starts no new case after this long")
    parser.add_argument("--processes", type=int, default=min(14, os.cpu_count() or 1))
    arguments = parser.parse_args()
    if max(arguments.tokens) > MAX_TOKENS:
        parser.error(f"the kernels take at most {MAX_TOKENS} tokens")
    deadline = time.monotonic() + arguments.seconds
    models = [model for model in MODELS if model.name in arguments.models]
    cases = [
        (tokens, kind, model, product)
        for tokens in arguments.tokens
        for kind in arguments.kinds
        for model in models
        for product in model.products(kind)
    ]
    bandwidth = read_bandwidth("cuda")
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, reads {bandwidth / 1e9:.0f} GB/s", flush=True)
    results: list[dict[str, object]] = []
    steps: list[dict[str, object]] = []
    best: dict[tuple[str, int, Product], Config] = {}
    benches: dict[tuple[str, str], Bench] = {}

    def bench(model: Model, kind: str) -> Bench:
        if (model.name, kind) not in benches:
            benches[model.name, kind] = Bench(model, kind)
        return benches[model.name, kind]

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(arguments.processes, mp_context=context)
    builds: dict[object, Future[None]] = {}

    def build(kind: str, product: Product, tokens: int, config: Config, overlap: bool = True) -> Future[None]:
        if config.tensor and kind not in GROUPS:  # one kernel serves eight tokens or fewer
            tokens = 8 * ceil(tokens / 8)
        what = (kind, product, tokens, config, overlap)
        if what not in builds:
            builds[what] = pool.submit(compile_ahead, *what)
        return builds[what]

    def cuts(tokens: int, kind: str, product: Product) -> list[Config]:
        shape = (kind, tokens, product.rows, product.columns)
        found = [choose(*shape)]
        if kind not in GROUPS:
            found.append(choose(*shape, tensor=False))
        if tokens > 1:
            found += tensor_candidates(kind, product)
        if tokens == 1 or arguments.full:
            found += candidates(kind, tokens, product)
        if form := GROUPS.get(kind):
            least = (2 if tokens == 1 else 1) * form.chunk  # columns of a warp
            found = [c for c in found if not c.tensor or least <= c.block_k // c.warps <= 2 * least]
        return list(dict.fromkeys(found))

    try:
        for tokens, kind, _, product in cases:
            for config in cuts(tokens, kind, product):
                build(kind, product, tokens, config)
        for tokens, kind, model, product in cases:
            if time.monotonic() > deadline:
                print("out of time; the rest is not measured", flush=True)
                for pending in builds.values():
                    pending.cancel()
                break
            held = bench(model, kind)
            size = product.rows * product.columns * BYTES[kind]
            timed = []
            for config in cuts(tokens, kind, product):
                try:
                    build(kind, product, tokens, config).result(timeout=120)
                    timed.append((held.time(product, tokens, config), config))
                except Exception as error:  # a cut that cannot be built is one answer among others
                    print(f"  {kind} T={tokens} {product.name} {config.cut}: {error!r:.200}", flush=True)
            if not timed:
                continue
            seconds, config = min(timed, key=lambda pair: pair[0])
            best[kind, tokens, product] = config
            default = choose(kind, tokens, product.rows, product.columns)
            present = next((s for s, c in timed if c == default), float("nan"))
            tensor = min((s for s, c in timed if c.tensor), default=float("nan"))
            rate = size / seconds
            print(
                f"{kind:5} T={tokens} {model.name:12} {product.name:7} {seconds * 1e6:7.2f} µs "
                f"{rate / 1e9:5.0f} GB/s {rate / bandwidth:4.0%} {config.cut!s:22} "
                f"table {present * 1e6:7.2f} µs, tensor cores {tensor * 1e6:7.2f} µs",
                flush=True,
            )
            results.append(
                {
                    "kind": kind,
                    "tokens": tokens,
                    "model": model.name,
                    "product": product.name,
                    "bytes": size,
                    "timed": [{"seconds": s, **asdict(c)} for s, c in sorted(timed, key=lambda p: p[0])],
                }
            )
        print("\nwhole steps without attention, best cuts", flush=True)
        for kind in arguments.kinds:
            for model in models:
                held = bench(model, kind)
                for tokens in sorted(arguments.tokens):
                    if any((kind, tokens, product) not in best for product in held.copies):
                        continue
                    steps.append(step(held, tokens, best, bandwidth, build))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        report(bandwidth, results, steps, best)


def step(
    held: Bench,
    tokens: int,
    best: dict[tuple[str, int, Product], Config],
    bandwidth: float,
    build: Callable[..., Future[None]],
) -> dict[str, object]:
    """Times a step with and without dependent launch, and prints both."""
    from edge_tui.engine.ops.triton import launch

    seconds = {}
    for overlap in (True, False) if tokens == 1 else (True,):
        for product in held.copies:
            build(held.kind, product, tokens, best[held.kind, tokens, product], overlap).result(timeout=120)
        launch.dependent_launch = overlap
        seconds[overlap] = held.step(tokens, lambda product: best[held.kind, tokens, product])
    launch.dependent_launch = True
    floor = held.step_bytes() / bandwidth
    print(
        f"{held.kind:5} T={tokens} {held.model.name:12} {seconds[True] * 1e6:8.1f} µs, "
        f"floor {floor * 1e6:8.1f} µs, {floor / seconds[True]:4.0%}"
        + (f"; without dependent launch {seconds[False] * 1e6:8.1f} µs" if False in seconds else ""),
        flush=True,
    )
    return {
        "kind": held.kind,
        "tokens": tokens,
        "model": held.model.name,
        "floor": floor,
        "overlapping": seconds[True],
        "apart": seconds.get(False),
    }


def report(
    bandwidth: float,
    results: list[dict[str, object]],
    steps: list[dict[str, object]],
    best: dict[tuple[str, int, Product], Config],
) -> None:
    cuts: dict[tuple[str, int, int], dict[int, tuple[int, ...]]] = {}
    for (kind, tokens, product), config in sorted(best.items(), key=lambda item: item[0][:2]):
        cuts.setdefault((kind, product.rows, product.columns), {})[tokens] = config.cut
    table = [f"{matrix}: {found}" for matrix, found in sorted(cuts.items())]
    print("\nfor project_configs, by number of tokens:\n" + "\n".join(table))
    if folder := os.environ.get("OUT"):
        whole = {"bandwidth": bandwidth, "products": results, "steps": steps, "table": table}
        (Path(folder) / "project.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
