"""Measures whole steps under other cuts: `python -m tests.engine.ops.speed_step --model qwen2-7b --rows 4`.

A product that is quickest alone need not be so in a step, where the kernel before it is still running and the
one after has begun. From what `project_configs` says, one product after the other takes what neighbours its
cut has, and keeps what makes the engine's own step quicker. At the end steps as they were and as they became
are measured in turn, and the rows that changed are printed for the table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.random_models import write_random
from edge_tui.engine.ops.triton import project as project_triton
from edge_tui.engine.ops.triton.project_configs import Config, choose
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.ops.speed_project import MODELS, Model

KINDS = {"bfloat16": "plain", "int8": "int8", "4bit": "nf4"}
GAIN = 0.999
"""A cut is taken for a step that takes less than this share of the best one's time."""
Place = tuple[str, int, int, int]
"""Kind, `T`, `N` and `K` of a product."""


def neighbours(cut: Config) -> Iterator[Config]:
    """Cuts with twice or half of one or two of its numbers."""
    for n, k, warps in (
        (1, 2, 1), (1, 0.5, 1), (1, 1, 2), (1, 1, 0.5), (1, 2, 2), (1, 0.5, 0.5), (2, 1, 1), (0.5, 1, 1),
        (2, 0.5, 1), (0.5, 2, 1), (2, 1, 2), (0.5, 1, 0.5),
    ):  # fmt: skip
        wanted = replace(
            cut, block_n=int(cut.block_n * n), block_k=int(cut.block_k * k), warps=int(cut.warps * warps)
        )
        least = 16 if cut.tensor else 2
        if (
            wanted.block_n >= least
            and 1 <= wanted.warps <= 16
            and 64 * wanted.warps <= wanted.block_k <= 8192
        ):
            yield wanted


class Steps:
    """The engine with a model of random weights, and cuts of one's own.

    Args:
        model: Its shapes.
        precision: Of its weights.
        rows: Rows of a step.
        device: Where.
    """

    def __init__(self, model: Model, precision: str, rows: int, device: str) -> None:
        folder = write_random(Path(tempfile.mkdtemp()) / model.name, model.name)
        self.cuts: dict[Place, Config] = {}
        self._rows, self._runs = rows, 0
        self._edge = EdgeRunner(
            {"model": ModelSpec(str(folder), precision, device)}, frozenset((str(folder),))
        )
        self._tokenizer = self._edge.load().tokenizer
        project_triton.choose = self._choose  # type: ignore[assignment]

    def _choose(self, kind: str, tokens: int, rows: int, columns: int, *, tensor: bool = True) -> Config:
        given = self.cuts.get((kind, tokens, rows, columns)) if tensor else None
        return given or choose(kind, tokens, rows, columns, tensor=tensor)

    def milliseconds(self, rounds: int = 3) -> float:
        """Of the quickest of some runs with the cuts as they are."""
        self._edge._engine._prefix_cache.clear()  # and with them what was captured  # noqa: SLF001
        self._run(40)
        return min(self._run(160) for _ in range(rounds))

    def _run(self, tokens: int) -> float:
        self._runs += 1
        ids = tuple(prompt_ids(self._tokenizer, 64, self._runs))
        end = self._edge.generate(
            Request("", ids=ids, strategy="greedy", max_length=tokens, samples=self._rows)
        )
        return end.seconds / (self._edge.state.steps - 1) * 1e3

    def close(self) -> None:
        self._edge.close()


def search(steps: Steps, model: Model, kind: str, rows: int, seconds: float) -> None:
    """Looks for better cuts of each product, for so long at most."""
    began = time.monotonic()
    best = steps.milliseconds(6)
    print(f"{model.name} {kind} T={rows}: {best:.4f} ms", flush=True)
    for product in sorted((*model.layer(), model.head()), key=lambda it: -it.rows * it.columns):
        place = ("plain" if product.name == "head" else kind, rows, product.rows, product.columns)
        present = choose(*place)
        for cut in neighbours(present):
            if time.monotonic() - began > seconds:
                break
            before = steps.cuts.get(place, present)
            steps.cuts[place] = cut
            try:
                taken = steps.milliseconds()
                if taken < GAIN * best:  # once more, with room for a lucky run to be found out
                    taken = max(taken, steps.milliseconds())
            except Exception as error:  # a cut that cannot be built is one answer among others
                print(f"  {product.name:8} {astuple(cut)}: {error!r:.120}", flush=True)
                taken = float("inf")
            better = taken < GAIN * best
            print(f"  {product.name:8} {astuple(cut)} {taken:.4f} ms{', taken' * better}", flush=True)
            if better:
                best = taken
            else:
                steps.cuts[place] = before
    found = steps.cuts
    for turn in ("first", "second"):
        steps.cuts = {}
        was = steps.milliseconds(6)
        steps.cuts = found
        print(f"{turn}: {was:.4f} ms as it was, {steps.milliseconds(6):.4f} ms as it became", flush=True)
    for place, cut in found.items():
        if cut != choose(*place):
            print(f"    ({', '.join(map(repr, place))}, Config{astuple(cut)!r}),", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    models = {model.name: model for model in MODELS}
    parser.add_argument("--model", choices=models, default="qwen2-7b")
    parser.add_argument("--precision", choices=KINDS, default="bfloat16")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=120.0, help="tries no new cut after this long")
    asked = parser.parse_args()
    model = models[asked.model]
    steps = Steps(model, asked.precision, asked.rows, asked.device)
    try:
        search(steps, model, KINDS[asked.precision], asked.rows, asked.seconds)
    finally:
        steps.close()


if __name__ == "__main__":
    main()
