"""Measures whole steps under other cuts: `python -m tests.engine.ops.speed_step --kind Q4_0 --rows 4`.

A product that is quickest alone need not be so in a step, where the kernel before it is still running and the
one after has begun. From what `project_configs` says, one product after the other takes what neighbours its
cut has, and keeps what makes the engine's own step quicker. At the end steps as they were and as they became
are measured in turn, and the rows that changed are printed for the table.

Rows above one are beams. Kernels are compiled ahead by several processes, into Triton's cache on disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edge_tui.bench.edge_runner import EdgeRunner, prompt_ids
from edge_tui.bench.random_models import write_random
from edge_tui.engine.ops.code_groups import pack
from edge_tui.engine.ops.group_form import GroupForm
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.triton import project as project_triton
from edge_tui.engine.ops.triton.project_configs import Config, choose
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.ops.product_shapes import MODELS, Product
from tests.engine.ops.random_groups import KINDS, random_groups
from tests.engine.ops.speed_packed import store_as
from tests.engine.ops.speed_project import random_matrix

PRECISIONS = ("bfloat16", "int8", "4bit")
GAIN = 0.999
"""A cut is taken for a step that takes less than this share of the best one's time."""


@dataclass(frozen=True)
class Place:
    """One product of a step, and what its kernel folds in."""

    kind: str
    form: GroupForm | None
    tokens: int
    rows: int
    columns: int
    norm: bool
    gate: str
    residual: bool
    bias: bool
    dtype: torch.dtype

    @property
    def table(self) -> tuple[str, int, int, int]:
        """What the table chooses by."""
        return self.kind, self.tokens, self.rows, self.columns

    def least(self, warps: int) -> int:
        """Columns of the smallest tile that these warps share."""
        if self.form is None:
            return 64 * warps
        return self.form.chunk * warps * (2 if self.tokens == 1 else 1)


def neighbours(place: Place, cut: Config) -> Iterator[Config]:
    """Cuts with another number of tiles ahead, then with twice or half of one or two of its numbers."""
    if place.form is not None:
        yield replace(cut, ahead=3 - cut.ahead)
    for n, k, warps in (
        (2, 1, 2), (2, 1, 1), (1, 1, 2), (1, 2, 2), (1, 0.5, 1), (1, 2, 1), (1, 1, 0.5), (0.5, 1, 1),
        (1, 0.5, 0.5), (2, 0.5, 1), (0.5, 2, 1), (4, 1, 2), (2, 0.5, 0.5), (0.5, 1, 0.5),
    ):  # fmt: skip
        wanted = replace(
            cut, block_n=int(cut.block_n * n), block_k=int(cut.block_k * k), warps=int(cut.warps * warps)
        )
        fits = wanted.block_n >= (16 if cut.tensor else 2) and 1 <= wanted.warps <= 16
        most = 8192 if place.form is None else 2 * place.least(wanted.warps)
        if fits and place.least(wanted.warps) <= wanted.block_k <= most:
            yield wanted


def build(place: Place, cut: Config) -> None:
    """Builds one kernel by running it on a few rows."""
    rows = 2 * cut.block_n
    if place.form is None:
        packed = random_matrix(place.kind, Product("", rows, place.columns))
    else:
        packed = pack(random_groups(place.form, rows, place.columns, device="cuda"))
    like: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16}
    packed = replace(packed, bias=torch.zeros(rows, **like) if place.bias else None)
    x = torch.zeros(place.tokens, place.columns, **like)
    width = rows // 2 if place.gate else rows
    out = torch.zeros(place.tokens, width, device="cuda", dtype=place.dtype)
    norm, residual = x[0] if place.norm else None, out if place.residual else None
    project_triton.project(x, packed, out, norm=norm, gate=place.gate, residual=residual, config=cut)
    torch.cuda.synchronize()


class Steps:
    """The engine with a model of random weights, and cuts of one's own.

    Args:
        model: Name of its shapes.
        kind: What its weights are stored as.
        rows: Rows of a step.
        device: Where.

    Attributes:
        cuts: Those that the table does not choose.
        places: What was multiplied in steps.
    """

    def __init__(self, model: str, kind: str, rows: int, device: str) -> None:
        folder = write_random(Path(tempfile.mkdtemp()) / model, model)
        if kind not in PRECISIONS:
            store_as(kind)
        self.cuts: dict[Place, Config] = {}
        self.places: dict[Place, None] = {}
        self._rows, self._runs = rows, 0
        precision: Any = kind if kind in PRECISIONS else "auto"
        self._edge = EdgeRunner(
            {"model": ModelSpec(str(folder), precision, device)}, frozenset((str(folder),))
        )
        self._tokenizer = self._edge.load().tokenizer
        self._project = project_triton.project
        project_triton.project = self._place

    def _place(self, x: torch.Tensor, packed: PackedMatrix, out: torch.Tensor, **how: Any) -> None:
        place = Place(
            packed.kind,
            packed.form,
            len(x),
            packed.rows,
            packed.columns,
            how.get("norm") is not None,
            how.get("gate", ""),
            how.get("residual") is not None,
            packed.bias is not None,
            out.dtype,
        )
        if len(x) == self._rows:
            self.places[place] = None
        self._project(x, packed, out, **how, config=self.cuts.get(place))

    def milliseconds(self, rounds: int = 3) -> float:
        """Of the quickest of some runs with the cuts as they are."""
        self._edge._engine._prefix_cache.clear()  # and with them what was captured  # noqa: SLF001
        self._run(24)
        return min(self._run(120) for _ in range(rounds))

    def _run(self, tokens: int) -> float:
        self._runs += 1
        ids = tuple(prompt_ids(self._tokenizer, 64, self._runs))
        how: dict[str, Any] = {"strategy": "greedy"}
        if self._rows > 1:
            how = {"strategy": "beam", "values": {"num_beams": self._rows}}
        end = self._edge.generate(Request("", ids=ids, max_length=tokens, **how))
        return end.seconds / (self._edge.state.steps - 1) * 1e3

    def close(self) -> None:
        self._edge.close()


def search(steps: Steps, seconds: float) -> None:
    """Looks for better cuts of each product, for so long at most."""
    began = time.monotonic()
    best = steps.milliseconds(6)
    print(f"{best:.4f} ms", flush=True)
    places = sorted(steps.places, key=lambda place: -place.rows * place.columns)
    pool = ProcessPoolExecutor(min(14, os.cpu_count() or 1), multiprocessing.get_context("spawn"))
    builds: dict[tuple[Place, Config], Future[None]] = {
        (place, cut): pool.submit(build, place, cut)
        for place in places
        for cut in neighbours(place, choose(*place.table))
    }
    for (place, cut), built in builds.items():
        if time.monotonic() - began > seconds:
            break
        before = steps.cuts.get(place)
        steps.cuts[place] = cut
        try:
            built.result(timeout=60)
            taken = steps.milliseconds(2)
            if taken < GAIN * best:  # once more, with room for a lucky run to be found out
                taken = max(taken, steps.milliseconds(2))
        except Exception as error:  # a cut that cannot be built is one answer among others
            print(f"  {place.table} {cut.cut}: {error!r:.120}", flush=True)
            taken = float("inf")
        better = taken < GAIN * best
        print(f"  {place.table} {cut.cut} {taken:.4f} ms{', taken' * better}", flush=True)
        if better:
            best = taken
        elif before is None:
            del steps.cuts[place]
        else:
            steps.cuts[place] = before
    pool.shutdown(wait=False, cancel_futures=True)
    found = steps.cuts
    for turn in ("first", "second"):
        steps.cuts = {}
        was = steps.milliseconds(4)
        steps.cuts = found
        print(f"{turn}: {was:.4f} ms as it was, {steps.milliseconds(4):.4f} ms as it became", flush=True)
    for place, cut in found.items():
        print(f"    {place.table}: {cut.cut}, before {choose(*place.table).cut}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=[model.name for model in MODELS], default="qwen2-7b")
    parser.add_argument("--kind", choices=(*PRECISIONS, "Q4_K_M", "AWQ", *KINDS), default="bfloat16")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--seconds", type=float, default=120.0, help="tries no new cut after this long")
    asked = parser.parse_args()
    steps = Steps(asked.model, asked.kind, asked.rows, asked.device)
    try:
        print(f"{asked.model} {asked.kind} {asked.rows} rows", flush=True)
        search(steps, asked.seconds)
    finally:
        steps.close()


if __name__ == "__main__":
    main()
