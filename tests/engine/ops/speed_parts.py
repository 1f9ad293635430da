"""Measures what each kind of kernel costs in a step: `python -m tests.engine.ops.speed_parts gemma-2-2b`.

A whole step of a fused model of random weights is captured and replayed, then again without one kind of its
kernels, and again without another. Where kernels overlap only such differences say what a kind costs: a
kernel that waits for the one before it counts that one's time as its own. Beside it stands the time in which
the device reads the kind's weights. `--tilings 64,1,8 128,1,16` tries other tiles of attention in the step,
each with the keys of a tile, the fewest tiles of a piece, and warps.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from edge_tui.bench.random_models import RandomWeights, write_random
from edge_tui.bench.roofline import read_bandwidth
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.models.loader import load
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.triton import attend as attend_triton
from edge_tui.engine.ops.triton import norms as norms_triton
from edge_tui.engine.ops.triton import project as project_triton
from edge_tui.engine.ops.triton.project_configs import choose
from edge_tui.engine.port import ModelSpec
from tests.engine.ops.speed_project import replayed


class Steps:
    """A model, and a context that holds some positions.

    Args:
        name: Of the model.
        precision: Of its weights.
        rows: Rows of a step.
        length: Positions that each row has.
    """

    def __init__(self, name: str, precision: str, rows: int, length: int) -> None:
        folder = write_random(Path(tempfile.mkdtemp()) / name, name)
        loaded = load(ModelSpec(str(folder), precision, "cuda:0", 4096), weights_from=RandomWeights)
        assert isinstance(loaded.model, FlatModel)
        self.model = loaded.model
        assert self.model.fused is not None, self.model.caps.reason
        self._ids = torch.full((rows, 1), 5, device="cuda:0")
        self._ctx = self.model.open(rows, 4096)
        self._ctx.length.fill_(length)
        self._start = self._ctx.length.clone()

    def microseconds(self) -> float:
        """Of one step, as a graph of ten says it."""

        def work() -> None:
            for _ in range(10):
                self._ctx.length.copy_(self._start)
                assert self.model.fused is not None
                self.model.fused(self._ctx, self._ids)

        with torch.inference_mode():
            return replayed(work) * 1e5

    def matrices(self) -> dict[tuple[int, int], list[PackedMatrix]]:
        """Matrices by their shapes."""
        assert self.model.weights is not None
        found: dict[tuple[int, int], list[PackedMatrix]] = {}
        for matrix in self.model.weights.matrices:
            if (packed := matrix.packed()) is not None:
                found.setdefault((packed.rows, packed.columns), []).append(packed)
        return found


@contextmanager
def without(module: Any, name: str, left_out: Callable[..., bool] = lambda *_, **__: True) -> Iterator[None]:
    """Lets a function of a module do nothing for the arguments that are left out."""
    right = getattr(module, name)

    def wrong(*given: Any, **options: Any) -> None:
        if not left_out(*given, **options):
            right(*given, **options)

    with patch.object(module, name, wrong):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=192)
    parser.add_argument("--whole", action="store_true", help="the whole step alone")
    parser.add_argument("--tilings", nargs="*", default=[])
    asked = parser.parse_args()
    bandwidth = read_bandwidth("cuda:0")
    for name in asked.models:
        torch.cuda.empty_cache()
        steps = Steps(name, asked.precision, asked.rows, asked.length)
        whole = steps.microseconds()
        print(f"{name}, {asked.rows} rows of {asked.length} positions: {whole:.1f} µs a step", flush=True)
        if asked.whole:
            steps.model.release()
            continue
        total = 0.0
        for (rows, columns), same in steps.matrices().items():

            def is_this(x: Any, packed: Any, *_: Any, shape: Any = (rows, columns), **__: Any) -> bool:
                return (packed.rows, packed.columns) == shape

            with without(project_triton, "project", is_this):
                part = whole - steps.microseconds()
            read = sum(each.weight.nbytes for each in same) / bandwidth * 1e6
            total += read
            cut = choose(same[0].kind, asked.rows, rows, columns)
            print(f"  {len(same):3} × {rows} × {columns}: {part:7.1f} µs, read in {read:7.1f} µs, {cut}")
        for module, kernel in (
            (attend_triton, "attend"),
            (norms_triton, "add_normed"),
            (norms_triton, "norm_heads"),
        ):
            with without(module, kernel):
                print(f"  {kernel}: {whole - steps.microseconds():7.1f} µs")
        for text in asked.tilings:
            block, least, warps = map(int, text.split(","))
            tuning = attend_triton.Tuning(block, least, warps, stages=1)
            with patch.object(attend_triton, "choose_tuning", lambda *_, t=tuning: t):
                print(f"  attention in {tuning}: {steps.microseconds():.1f} µs a step", flush=True)
        print(f"  all weights are read in {total:.1f} µs, {total / whole:.1%} of the step", flush=True)
        steps.model.release()


if __name__ == "__main__":
    main()
