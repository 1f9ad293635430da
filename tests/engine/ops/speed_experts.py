"""Measures mixtures of experts at true shapes: `python -m tests.engine.ops.speed_experts [--seconds 170]`.

Each figure is one call's share of a replayed graph of many, whose tokens chose other experts each time, so no
cache holds them. Bytes are those of the experts that a call's tokens chose, each counted once. First the
default cut is measured for one to eight tokens, and beside it the plain operations for one, which wait for
the device; then other cuts of gate and up, and of down, the best ones named last. With `OUT` set, all of it
goes to `$OUT/experts.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from edge_tui.bench.roofline import read_bandwidth
from edge_tui.engine.ops import experts as reference
from edge_tui.engine.ops.experts import Experts, Routing
from edge_tui.engine.ops.triton import experts as experts_triton
from edge_tui.engine.ops.triton.project_configs import Config

DTYPE = torch.bfloat16
CALLS = 48
TOKENS = (1, 2, 4, 8)
CUTS = tuple(
    Config(block_n, block_k, warps)
    for block_n in (2, 4, 8, 16)
    for block_k in (256, 512, 1024, 2048)
    for warps in (1, 2, 4, 8)
    if 8 <= block_n * block_k // (32 * warps) <= 128
)


@dataclass(frozen=True)
class Shape:
    """A layer of a published model."""

    name: str
    hidden: int
    width: int
    experts: int
    active: int
    limit: float = 0.0


SHAPES = (
    Shape("qwen3-30b-a3b", 2048, 768, 128, 8),
    Shape("mixtral-8x7b", 4096, 14336, 8, 2),
    Shape("olmoe-1b-7b", 2048, 1024, 64, 8),
    Shape("qwen1.5-moe-a2.7b", 2048, 1408, 60, 4),
    Shape("granite-3b-a800m", 1536, 512, 40, 8),
    Shape("gpt-oss-20b", 2880, 2880, 32, 4, 7.0),
)


class Bench:
    """Arguments for one shape and number of tokens, with choices for many calls."""

    def __init__(self, shape: Shape, tokens: int, device: str = "cuda") -> None:
        s, options = shape, {"device": device, "dtype": DTYPE}
        self.shape, self.tokens = shape, tokens
        self.how = Routing(s.active, True, s.limit, 1.702)
        biases: tuple[torch.Tensor, ...] = ()
        if s.limit:
            sizes = (s.experts,), (s.experts, 2 * s.width), (s.experts, s.hidden)
            biases = tuple(torch.zeros(*size, **options) for size in sizes)
        gate_up = torch.empty(s.experts, 2 * s.width, s.hidden, **options).normal_(0, 0.02)
        down = torch.empty(s.experts, s.hidden, s.width, **options).normal_(0, 0.02)
        self.weights = Experts(torch.zeros(s.experts, s.hidden, **options), gate_up, down, *biases)
        self.x = torch.randn(tokens, s.hidden, **options)
        self.norm = torch.ones(s.hidden, **options)
        self.logits = torch.randn(CALLS, tokens, s.experts, device=device)
        self.chosen = self.logits.topk(s.active, -1).indices.to(torch.int32)
        self.shares = torch.full((tokens, s.active), 1 / s.active, device=device)
        self.choice = torch.empty(tokens, s.active, dtype=torch.int32, device=device)
        self.wide = torch.zeros(tokens * s.active, s.width, **options)
        self.out = torch.zeros(tokens, s.hidden, **options)

    def choose(self, i: int) -> None:
        experts_triton.choose_experts(self.logits[i], self.choice, self.shares, self.shape.experts, self.how)

    def gate_up(self, i: int, cut: Config | None = None) -> None:
        given = self.x, self.weights, self.chosen[i], self.wide, self.how
        experts_triton.gate_up(*given, norm=self.norm, eps=1e-6, cut=cut)

    def down(self, i: int, cut: Config | None = None) -> None:
        given = self.wide, self.weights, self.chosen[i], self.shares, self.out, self.how
        experts_triton.down(*given, residual=self.x, cut=cut)

    def whole(self, i: int) -> None:
        self.choose(i)
        self.gate_up(i)
        self.down(i)

    def plain(self, i: int) -> None:
        chosen, shares = reference.choose(self.logits[i], self.shape.experts, self.how)
        reference.mix(self.x, self.weights, chosen, shares, self.how)

    def bytes(self, part: str) -> float:
        """Bytes of the chosen experts' weights that one call reads, on average."""
        s = self.shape
        distinct = statistics.mean(len(set(each.flatten().tolist())) for each in self.chosen)
        rows = {"gate_up": 2 * s.width, "down": s.width, "whole": 3 * s.width, "choose": 0}[part]
        return distinct * rows * s.hidden * DTYPE.itemsize


def microseconds(call: Callable[[int], None], captured: bool = True) -> float:
    """Microseconds of one call, the median of some rounds over all choices."""
    call(0)
    torch.cuda.synchronize()

    def every() -> None:
        for i in range(CALLS):
            call(i)

    replay = every
    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            every()
        replay = graph.replay
    replay()
    times = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / CALLS)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=[shape.name for shape in SHAPES], action="append")
    parser.add_argument("--seconds", type=float, default=170.0, help="tries no new cut after this long")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "It needs an NVIDIA GPU, and torch finds none.\n")
    began, found = time.monotonic(), []
    bandwidth = read_bandwidth("cuda")
    print(f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s", flush=True)

    def note(b: Bench, part: str, us: float, cut: Config | None = None, print_it: bool = True) -> None:
        rate = b.bytes(part) / us * 1e6
        row: dict[str, Any] = {**asdict(b.shape), "tokens": b.tokens, "part": part, "us": us, "rate": rate}
        found.append({**row, "cut": None if cut is None else astuple(cut)[:3]})
        if print_it:
            what = f"cut {astuple(cut)[:3]}" if cut else ""
            share = f"{rate / 1e9:7.0f} GB/s {rate / bandwidth:6.1%}" if rate else ""
            print(f"{b.shape.name:18} {b.tokens} tokens {part:8} {us:8.2f} µs {share} {what}", flush=True)

    shapes = [shape for shape in SHAPES if not asked.shape or shape.name in asked.shape]
    for shape in shapes:
        for tokens in TOKENS:
            b = Bench(shape, tokens)
            for part in ("choose", "gate_up", "down", "whole"):
                note(b, part, microseconds(getattr(b, part)))
        b = Bench(shape, 1)
        print(
            f"{shape.name:18} 1 tokens plain    {microseconds(b.plain, captured=False):8.2f} µs", flush=True
        )
    for shape in shapes:
        for tokens in (1, 4):
            b = Bench(shape, tokens)
            for part in ("gate_up", "down"):
                times: dict[Config, float] = {}
                for cut in CUTS:
                    if time.monotonic() - began > asked.seconds:
                        break
                    try:
                        times[cut] = microseconds(lambda i, b=b, p=part, c=cut: getattr(b, p)(i, c))  # type: ignore[misc]
                    except Exception as error:  # a cut that cannot be built is one answer among others
                        print(f"  {astuple(cut)[:3]}: {error!r:.100}", flush=True)
                        continue
                    note(b, part, times[cut], cut, print_it=False)
                for cut in sorted(times, key=lambda cut: times[cut])[:3]:
                    note(b, part, times[cut], cut)
        if out := os.environ.get("OUT"):
            result = {"device": torch.cuda.get_device_name(), "bandwidth": bandwidth, "found": found}
            (Path(out) / "experts.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
