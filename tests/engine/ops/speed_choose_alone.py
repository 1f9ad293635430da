"""Measures what a token costs after the forward: `python -m tests.engine.ops.speed_choose_alone`.

Each strategy's step is timed as replays of a graph, fused and as torch operations, on logits of a language
model's spread at temperature 1.5, and so are proposals, their check and the record. With `OUT` set, all of it
goes to `$OUT/choose.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Env, Output, Params
from edge_tui.decoders.beam import Beam
from edge_tui.decoders.contrastive import Contrastive
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.speculative import Speculative
from edge_tui.engine.ops import stats
from edge_tui.engine.ops.choose_plan import plan
from edge_tui.engine.ops.triton import launch
from edge_tui.engine.ops.triton import stats as stats_triton
from edge_tui.engine.ops.triton.availability import available
from edge_tui.engine.ops.triton.beam import FusedBeam
from edge_tui.engine.ops.triton.choose import FusedChoice
from edge_tui.engine.ops.triton.choose_parts import FusedStep
from edge_tui.engine.ops.triton.contrast import FusedContrast
from edge_tui.engine.ops.triton.speculate import FusedSpeculative
from tests.decoders.driver import param_values

STEPS: dict[str, dict[str, float]] = {
    "greedy": {},
    **{each.name: {"temperature": 1.5} for each in decoders.strategies() if isinstance(each, Sampling)},
    "auto": {"do_sample": 1, "temperature": 1.5, "top_k": 50, "top_p": 0.9},
    "beam": {"num_beams": 4},
    "contrastive": {},
}
ROUNDS = 40
"""Steps in one graph."""


@dataclass
class Figure:
    """One measurement.

    Attributes:
        vocabulary: `V`.
        what: The strategy, or "record".
        how: "torch", or how the fused kernels were launched.
        micros: Microseconds of one step, median.
        over_greedy: The same beyond fused greedy.
        kept: Candidates left, of the first row.
    """

    vocabulary: int
    what: str
    how: str
    micros: float
    over_greedy: float | None = None
    kept: int | None = None


def replayed(work: Callable[[], object], copies: int = ROUNDS) -> float:
    """Seconds of one piece of work: `copies` of it in a graph, the median of many replays."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(copies):
            work()
    times = []
    for _ in range(25):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000 / copies)
    return statistics.median(times)


class Bench:
    """A strategy with logits of one vocabulary."""

    def __init__(self, name: str, vocabulary: int, values: dict[str, float]) -> None:
        self.decoder: Decoder = decoders.find(name)
        resolved = param_values(self.decoder, **values)
        rows = self.rows = self.decoder.rows(resolved)
        self.vocabulary = vocabulary
        with torch.device("cuda"):
            generator = torch.Generator("cuda").manual_seed(vocabulary)
            self.outs = {
                stream.name: Output(torch.randn(rows, 1, vocabulary, generator=generator) * 2.5)
                for stream in self.decoder.streams
            }
            table = torch.tensor(list(resolved.values()))[:, None].repeat(1, rows)
            self.params = Params(list(resolved), table)
            step = torch.zeros(1, dtype=torch.int64)
            self.rng = Rng(torch.full((rows,), key_of(1)), step)
            prompt = torch.randint(0, vocabulary, (rows, 64))
            env = Env(rows, vocabulary, "cuda", prompt, torch.tensor([0, 1]), resolved, 10_000)
            self.state = self.decoder.init(env)

    def fused(self, dependent: bool) -> FusedStep | None:
        launch.dependent_launch = dependent
        chosen, parent = torch.zeros(2, self.rows, dtype=torch.int64, device="cuda")
        if isinstance(self.decoder, Contrastive):
            return FusedContrast(self.vocabulary, chosen)
        if isinstance(self.decoder, Beam):
            return FusedBeam(self.vocabulary, chosen, parent)
        how = plan(self.decoder)
        return how and FusedChoice(how, self.decoder, self.vocabulary, chosen)

    def figures(self) -> list[Figure]:
        """Fused with and without dependent launch where there are kernels, and as torch operations."""
        found = []
        for how, dependent in (("fused", False), ("fused, dependent", True)):
            if fused := self.fused(dependent):
                step = fused(self.outs, self.state, self.params, self.rng)
                kept = int((step.final[0] > -torch.inf).sum())

                def work(fused: FusedStep = fused) -> None:
                    fused(self.outs, self.state, self.params, self.rng)
                    fused.finish()

                seconds = replayed(work)
                found.append(Figure(self.vocabulary, self.decoder.name, how, seconds * 1e6, kept=kept))
        seconds = replayed(lambda: self.decoder.step(self.outs, self.state, self.params, self.rng), 4)
        return [*found, Figure(self.vocabulary, self.decoder.name, "torch", seconds * 1e6)]


def record_figures(vocabulary: int) -> list[Figure]:
    """The record of one row, and of four beams."""
    found = []
    for rows in (1, 4):
        with torch.device("cuda"):
            z = torch.randn(rows, vocabulary) * 2.5
            final = (z / 1.5).masked_fill(z < 5.0, -torch.inf)
            parent = torch.zeros(rows, dtype=torch.int64) if rows > 1 else torch.arange(1)
            done, version = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows)
        given = (z, final, final.argmax(-1), parent, done, version, [])
        what = f"record, {rows} rows" if rows > 1 else "record"
        fused = replayed(lambda given=given, rows=rows: stats_triton.record(*given, rows > 1))
        plain = replayed(lambda given=given: stats.reference(*given), 4)
        found += [
            Figure(vocabulary, what, "fused", fused * 1e6),
            Figure(vocabulary, what, "torch", plain * 1e6),
        ]
    return found


def speculative_figures(vocabulary: int, lookahead: int = 4) -> list[Figure]:
    """One proposal, and the check of all of a step."""
    decoder, found = Speculative(), []
    resolved = param_values(decoder, lookahead=lookahead, temperature=1.0)
    with torch.device("cuda"):
        params = Params(list(resolved), torch.tensor(list(resolved.values()))[:, None])
        rng = Rng(torch.full((1,), key_of(1)), torch.zeros(1, dtype=torch.int64))
        logits = Output(torch.randn(1, lookahead + 1, vocabulary) * 2.5)
        prompt, none = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        state = decoder.init(Env(1, vocabulary, "cuda", prompt, none, resolved, 100))
    fused = FusedSpeculative(vocabulary, torch.zeros(1, dtype=torch.int64, device="cuda"), lookahead)
    for how, strategy, copies in (("fused", fused, ROUNDS), ("torch", decoder, 4)):
        given = (state, params, rng)
        propose = replayed(lambda one=strategy, given=given: one.propose(logits, *given, 0), copies)
        check = replayed(lambda one=strategy, given=given: one.step({"model": logits}, *given), copies)
        found += [
            Figure(vocabulary, "proposal", how, propose * 1e6),
            Figure(vocabulary, f"check of {lookahead + 1}", how, check * 1e6),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75.0, help="stop starting new measurements after")
    args = parser.parse_args()
    assert available() is None, available()
    start = time.monotonic()
    figures: list[Figure] = []
    for vocabulary in (151_936, 32_000):
        for name, values in STEPS.items():
            if time.monotonic() - start < args.seconds:
                figures += Bench(name, vocabulary, values).figures()
        if time.monotonic() - start < args.seconds:
            figures += record_figures(vocabulary)
            figures += speculative_figures(vocabulary)
        greedy = min(
            (
                f.micros
                for f in figures
                if (f.vocabulary, f.what) == (vocabulary, "greedy") and f.how != "torch"
            ),
            default=None,
        )
        for figure in figures:
            if figure.vocabulary != vocabulary:
                continue
            if greedy is not None and figure.what in STEPS:
                figure.over_greedy = figure.micros - greedy
            over = "" if figure.over_greedy is None else f"{figure.over_greedy:+8.1f} over greedy"
            kept = "" if figure.kept is None else f"  keeps {figure.kept}"
            print(f"{vocabulary:7} {figure.what:16} {figure.how:17} {figure.micros:8.1f} µs {over}{kept}")
    print(f"{time.monotonic() - start:.0f} s on {torch.cuda.get_device_name()}")
    if out := os.environ.get("OUT"):
        device = torch.cuda.get_device_name()
        document = {"device": device, "figures": [asdict(figure) for figure in figures]}
        Path(out, "choose.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
