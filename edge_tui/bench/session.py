"""One bench: the device, its bandwidth, the models at hand, and where results are kept."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from edge_tui import decoders
from edge_tui.bench.edge_runner import Ours
from edge_tui.bench.job import BenchError
from edge_tui.bench.progress import Progress
from edge_tui.bench.random_models import CONFIGS, write_random
from edge_tui.bench.report import Ledger
from edge_tui.bench.roofline import read_bandwidth
from edge_tui.bench.transformers_runner import Peer
from edge_tui.engine.port import ModelSpec, Precision


@dataclass(frozen=True, slots=True)
class Target:
    """A model to measure.

    Attributes:
        title: As tables show it.
        name: As the engine finds it.
        invented: Whether its weights are random.
    """

    title: str
    name: str
    invented: bool


@dataclass
class Session:
    """What all measurements of one bench share. A context manager: on leaving, its folder goes.

    Attributes:
        device: "cpu", "cuda:0".
        ledger: Results, kept as they come.
        progress: What is said meanwhile.
        bandwidth: Bytes a second.
    """

    device: str
    ledger: Ledger
    progress: Progress
    bandwidth: float = 0.0
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="edge-tui-bench-")
    )

    @property
    def device_name(self) -> str:
        """As its maker calls it."""
        return str(self.ledger.head.get("device_name", self.device))

    def __enter__(self) -> Session:
        self.measure_bandwidth()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.end()
        self._folder.cleanup()

    @contextmanager
    def noting(self, *where: str) -> Iterator[None]:
        """What cannot be measured becomes a note, and the rest goes on."""
        try:
            yield
        except BenchError as error:
            self.ledger.note(f"{', '.join(where)}: {error}")

    def measure_bandwidth(self) -> None:
        """Reads as fast as the device can; the fastest that this bench has seen is what counts."""
        self.progress.say(f"measuring the read bandwidth of {self.device}")
        self.bandwidth = max(self.bandwidth, read_bandwidth(self.device))
        self.free()
        self.ledger.head["read_bandwidth"] = self.bandwidth

    def target(self, name: str, invented: bool) -> Target:
        """A model by the name that the command line gives.

        Raises:
            BenchError: there is no architecture of that name.
        """
        if not invented:
            return Target(name, name, False)
        if name not in CONFIGS:
            raise BenchError(f"There is no architecture {name!r} to invent; there is {', '.join(CONFIGS)}.")
        folder = Path(self._folder.name) / name
        if not folder.exists():
            write_random(folder, name)
        return Target(f"{name} (random)", str(folder), True)

    def ours(self, target: Target, precision: Precision, second: Target | None = None) -> Ours:
        """An engine whose strategies all find their models: `target` first, `second` beside it."""
        main = ModelSpec(target.name, precision, self.device)
        other = main if second is None else ModelSpec(second.name, precision, self.device)
        specs = {"model": main}
        for decoder in decoders.strategies():
            for place, role in enumerate(decoder.roles):
                specs.setdefault(role, other if place else main)
        invented = frozenset(t.name for t in (target, second) if t is not None and t.invented)
        return Ours(specs, invented)

    def peer(self, target: Target, precision: str) -> Peer:
        """Transformers' model for a target.

        Raises:
            BenchError: it cannot be built.
        """
        from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint

        try:
            folder = open_checkpoint(target.name).path
        except CheckpointError as error:
            raise BenchError(str(error)) from error
        return Peer(folder, self.device, precision, target.invented)

    def allocated(self) -> int:
        """Bytes of GPU memory in use, as the allocator counts; 0 on a CPU."""
        from edge_tui.engine.models.manager import memory_of

        return memory_of(self.device).allocated or 0 if self.device.startswith("cuda") else 0

    def peak(self, before: int) -> int | None:
        """The most bytes since `reset_peak` beyond `before`.

        None on a CPU: what malloc keeps from one model for the next makes a process's size no measure.
        """
        from edge_tui.engine.models.manager import memory_of

        peak = memory_of(self.device).peak
        return None if peak is None else peak - before

    def reset_peak(self) -> None:
        """Begins a new peak."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)

    def free(self) -> None:
        """Gives back what nobody holds any more."""
        import torch

        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
