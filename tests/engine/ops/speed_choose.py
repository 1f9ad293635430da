"""Measures what each strategy adds to a step of greedy: `python -m tests.engine.ops.speed_choose`.

Whole steps of the engine are timed, captured as a user's are: 200 tokens after a prompt of 64, the strategy
and greedy in turn, on a model of true size and random weights in one process. A row of the table is the
median of the differences of a round. With `OUT` set, all rounds go to `$OUT/strategies.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from edge_tui import decoders
from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.job import BenchError
from edge_tui.bench.random_models import write_random
from edge_tui.decoders.base import Decoder, Value, numbers
from edge_tui.decoders.registry.chain_text import write_chain
from edge_tui.decoders.registry.orders import put_in_order
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.engine.port import ModelSpec, Request

ACTING: Mapping[str, Mapping[str, Value]] = {
    "adaptive_p": {"adaptive_target": 0.3},
    "auto": {"do_sample": 1.0},
    "bad_words": {"bad_words": ("the", "of")},
    "logit_bias": {"logit_bias": ("#5=2", "#7=-2")},
    "min_new_tokens": {"min_new_tokens": 1000.0},
    "quadratic": {"smoothing_factor": 0.3},
}
"""Values at which strategies act that do nothing by default."""
TOKENS, PROMPT = 200, 64


@dataclass
class Row:
    """Holds the rounds of one strategy: microseconds of a step, its own and greedy's."""

    name: str
    own: list[float] = field(default_factory=list)
    greedy: list[float] = field(default_factory=list)

    @property
    def over(self) -> float:
        """The median difference."""
        return statistics.median(a - b for a, b in zip(self.own, self.greedy, strict=True))

    @property
    def spread(self) -> float:
        """Half the distance between the least difference and the greatest."""
        differences = [a - b for a, b in zip(self.own, self.greedy, strict=True)]
        return (max(differences) - min(differences)) / 2


def neutral_chain() -> tuple[str, dict[str, Value]]:
    """Names the chain of all stages that have neutral values alone, and those values."""
    filters = [each.filter for each in decoders.strategies() if isinstance(each, Sampling)]
    stages = {
        stage.name: stage
        for stage in filters
        if not stage.last and stage.params and all(isinstance(p.neutral, int | float) for p in stage.params)
    }
    plain = decoders.find("penalties+temperature").before
    stages |= {link.stage.name: link.stage for link in plain.links}  # type: ignore[misc]
    name = write_chain(put_in_order(list(stages), "transformers", stages))
    return name, {param.name: float(param.neutral or 0) for param in numbers(decoders.find(name).params)}


class Bench:
    """Holds the engine with one model in every role."""

    def __init__(self, model: str, precision: str, device: str) -> None:
        folder = write_random(Path(tempfile.mkdtemp()) / model, model)
        spec = ModelSpec(str(folder), precision, device)
        roles = {role for each in decoders.strategies() for role in each.roles}
        self._edge = EdgeRunner(dict.fromkeys(sorted(roles), spec), frozenset((str(folder),)))
        self._tokenizer = self._edge.load().tokenizer
        self._runs = 0

    def micros(self, strategy: str, values: Mapping[str, Value], tokens: int = TOKENS) -> float:
        """Measures the mean microseconds of a step behind the first one, in one run."""
        self._runs += 1
        ids = tuple(prompt_ids(self._tokenizer, PROMPT, self._runs))
        request = Request("", strategy, dict(values), ids=ids, max_length=tokens, seed=self._runs)
        end = self._edge.generate(request)
        return (end.seconds - end.time_to_first_token) / (self._edge.state.steps - 1) * 1e6

    def rounds(self, name: str, strategy: str, values: Mapping[str, Value], count: int) -> Row:
        """Measures a strategy and greedy in turn, after a run that captures its step."""
        row = Row(name)
        self.micros(strategy, values, 20)
        for _ in range(count):
            row.greedy.append(self.micros("greedy", {}))
            row.own.append(self.micros(strategy, values))
        return row

    def close(self) -> None:
        self._edge.close()


def asked(names: list[str]) -> list[tuple[str, str, Mapping[str, Value]]]:
    """Lists titles, strategies and values: all that read one row of one model, and the neutral chain."""

    def is_one_row(decoder: Decoder) -> bool:
        return decoder.kind == "sample" and decoder.roles == ("model",)

    one_row = [each.name for each in decoders.strategies() if is_one_row(each)]
    found = [(name, name, ACTING.get(name, {})) for name in one_row]
    found.append(("temperature", "penalties+temperature", {"temperature": 0.8}))
    found.append(("neutral chain", *neutral_chain()))
    return [each for each in found if not names or each[0] in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="strategies, or “neutral chain”; all without one")
    parser.add_argument("--model", default="qwen2-0.5b")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=400.0, help="starts no new strategy after this long")
    given = parser.parse_args()
    bench = Bench(given.model, given.precision, given.device)
    rows: list[Row] = []
    try:
        bench.micros("greedy", {})
        began = time.monotonic()
        for name, strategy, values in asked(given.names):
            if time.monotonic() - began > given.seconds:
                print(f"Not measured, for want of time: {name} and those after it.")
                break
            try:
                rows.append(bench.rounds(name, strategy, values, given.rounds))
            except BenchError as error:
                print(f"{name}: {error}")
    finally:
        bench.close()
    print("| strategy | µs over greedy | ± |\n| --- | ---: | ---: |")
    for row in sorted(rows, key=lambda row: row.over):
        print(f"| {row.name} | {row.over:+.1f} | {row.spread:.1f} |")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    greedy = statistics.median(value for row in rows for value in row.greedy)
    print(f"greedy: {greedy:.1f} µs a step of {given.model} {given.precision}")
    print(f"torch {torch.__version__}, {device}")
    if out := os.environ.get("OUT"):
        document = {"device": device, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        Path(out, "strategies.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
