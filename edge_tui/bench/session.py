"""Holds what the measurements of one bench share: device, bandwidth, models and results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_tui import decoders
from edge_tui.bench.edge_runner import EdgeRunner, ModelFacts
from edge_tui.bench.job import BenchError
from edge_tui.bench.progress import Progress
from edge_tui.bench.random_models import CONFIGS, write_random
from edge_tui.bench.report import Results
from edge_tui.bench.roofline import read_bandwidth
from edge_tui.bench.transformers_runner import TransformersRunner
from edge_tui.engine.models.device_memory import memory_of, release_cached_memory
from edge_tui.engine.port import ModelSpec, Precision


@dataclass(frozen=True, slots=True)
class BenchModel:
    """Names a model to measure.

    Attributes:
        title: As tables show it.
        name: As the engine finds it.
        random_weights: True if its weights are random.
    """

    title: str
    name: str
    random_weights: bool


@dataclass
class Session:
    """Makes models and runners for a bench's measurements; leaving the context deletes its folder.

    Attributes:
        device: "cpu", "cuda:0".
        results: Of the bench.
        progress: Of the bench.
        bandwidth: Bytes a second.
        second_device: Of the amateur or draft; "" for the same.
    """

    device: str
    results: Results
    progress: Progress
    bandwidth: float = 0.0
    second_device: str = ""
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="edge-tui-bench-")
    )

    def __enter__(self) -> Session:
        self.measure_bandwidth()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.end()
        self._folder.cleanup()

    @contextmanager
    def attempt(self, what: str, where: str) -> Iterator[bool]:
        """Begins a measurement: yields False if the time is up, and turns its error into a note."""
        self.progress.step(what)
        has_time = self.progress.left > 0
        if not has_time:
            self.results.note(f"{what}: not measured, the time was up.")
        with self.noting_errors(where):
            yield has_time

    @contextmanager
    def noting_errors(self, *where: str) -> Iterator[None]:
        """Turns an error of a measurement into a note, so that the others go on."""
        try:
            yield
        except BenchError as error:
            self.results.note(f"{', '.join(where)}: {error}")

    def measure_bandwidth(self) -> None:
        """Measures how fast the device reads; the fastest measurement of this bench counts."""
        self.progress.say(f"measuring the read bandwidth of {self.device}")
        self.bandwidth = max(self.bandwidth, read_bandwidth(self.device))
        release_cached_memory()
        self.results.head["read_bandwidth"] = self.bandwidth

    def model(self, name: str, random_weights: bool) -> BenchModel:
        """Finds a model by its name on the command line.

        Raises:
            BenchError: there is no architecture of that name.
        """
        if not random_weights:
            return BenchModel(name, name, False)
        if name not in CONFIGS:
            raise BenchError(f"There is no architecture {name!r} to invent; there is {', '.join(CONFIGS)}.")
        folder = Path(self._folder.name) / name
        if not folder.exists():
            write_random(folder, name)
        return BenchModel(f"{name} (random)", str(folder), True)

    def edge_runner(
        self,
        model: BenchModel,
        precision: Precision,
        second: BenchModel | None = None,
        ignore_eos: bool = True,
    ) -> EdgeRunner:
        """Makes an engine in which every strategy finds its models: `model` first, `second` beside it."""
        main = ModelSpec(model.name, precision, self.device)
        other = ModelSpec((second or model).name, precision, self.second_device or self.device)
        specs = {"model": main}
        for decoder in decoders.strategies():
            for place, role in enumerate(decoder.roles):
                specs.setdefault(role, other if place else main)
        random_weights = {each.name for each in (model, second or model) if each.random_weights}
        return EdgeRunner(specs, random_weights, ignore_eos)

    def transformers_runner(self, model: BenchModel, precision: str) -> TransformersRunner:
        """Loads a model in transformers.

        Raises:
            BenchError: it cannot be built.
        """
        from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint

        try:
            folder = open_checkpoint(model.name).path
        except CheckpointError as error:
            raise BenchError(str(error)) from error
        return TransformersRunner(folder, self.device, precision, model.random_weights)

    def describe(self, model: BenchModel, facts: ModelFacts) -> dict[str, Any]:
        """Returns the fields of a row that say what decoded, and where."""
        return {
            "model": model.title,
            "parameters": facts.info.parameters,
            "device": self.device if not self.second_device else f"{self.device}, {self.second_device}",
            "device_name": str(self.results.head.get("device_name", self.device)),
            "precision": facts.info.precision,
        }

    def allocated(self) -> int:
        """Counts the bytes in use: on a GPU those that the allocator has given out."""
        return memory_of(self.device).allocated or 0

    def peak(self, before: int) -> int | None:
        """Counts the most bytes since `reset_peak`, beyond `before`.

        None on a CPU: malloc keeps freed memory, so the size of a process is no measure.
        """
        peak = memory_of(self.device).peak
        return None if peak is None else peak - before

    def reset_peak(self) -> None:
        """Begins a new peak."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
