"""Shows two lines about the machine and the run: memory, load, tokens per second. Nothing moves sideways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from edge_tui.util.formatting import NA, bar, compact_count, duration, rate, size, sparkline

if TYPE_CHECKING:
    from edge_tui.engine.port import Engine
    from edge_tui.machine.nvml import GpuSample
    from edge_tui.machine.telemetry import Sample
    from edge_tui.tui.session import Run
    from edge_tui.tui.widgets.line_panel import Parts


@dataclass(frozen=True, slots=True)
class Speed:
    """Holds a run's tokens per second, now and on the mean, their history, and counts.

    `first` is seconds to the first token; None wherever nothing is known yet.
    """

    now: float | None = None
    mean: float | None = None
    history: tuple[float, ...] = ()
    first: float | None = None
    read: int | None = None
    written: int | None = None
    peak: int | None = None


def speed_of(run: Run, engine: Engine | None) -> Speed:
    """Reads the figures of a run; the peak of one in progress comes from the engine."""
    meter, finished, started = run.meter, run.finished, run.started
    peak = finished.peak_bytes if finished is not None else None
    # A strategy may propose a token a step before it decides on it.
    lag = run.decoder.lag if run.decoder is not None else 0
    if peak is None and run.active and engine is not None:
        peak = engine.memory().peak
    return Speed(
        now=meter.now,
        mean=(finished.tokens_per_second if finished is not None else None) or meter.mean,
        history=tuple(meter.history),
        first=run.first_token,
        read=started.prompt_tokens if started is not None else None,
        written=max(meter.total - lag, 0) if started is not None else None,
        peak=peak,
    )


class Gauge(Widget):
    """Draws fields of fixed width in order of weight, as many as the line holds."""

    DEFAULT_CSS = """
    Gauge { height: 4; border: round $border-blurred; padding: 0 1; }
    """

    sample: reactive[Sample | None] = reactive(None)
    speed: reactive[Speed] = reactive(Speed())
    on_gpu: reactive[bool] = reactive(False)
    """True where the model is on the watched GPU; else the machine's own memory is shown."""
    absent = reactive("measuring …")
    """Text in place of a sample."""
    ascii_only = False

    def on_mount(self) -> None:
        """Writes the title."""
        self.border_title = "gauge"

    def render(self) -> Content:
        """Writes the machine's line, then the run's."""
        width = self.content_size.width
        machine = self._machine(width)
        return Content.assemble(*_fit(machine, width), "\n", *_fit(self._run(width), width))

    def _machine(self, width: int) -> list[Parts]:
        """Lists the fields of the GPU where it decodes, else of processor and memory."""
        sample = self.sample
        if sample is None:
            return [[(self.absent, "$text-muted")]]
        long = 20 if width > 110 else 10
        if sample.gpu is not None and self.on_gpu:
            return self._gpu(sample.gpu, sample.others, long)
        share = sample.ram_used / sample.ram_total if sample.ram_total else 0.0
        used, total = size(sample.ram_used, "GB"), size(sample.ram_total, "GB")
        cpu = [("CPU ", "$primary bold"), (f"{sample.cpu_percent:>3.0f} % ", "")]
        return [
            cpu + self._bar(sample.cpu_percent / 100, long),
            _field("process", f"{size(sample.process_rss):>7}"),
            _field("memory", f"{used}/{total} GB ") + self._bar(share, long),
            _field("free", size(sample.ram_total - sample.ram_used)),
        ]

    def _gpu(self, gpu: GpuSample, others: tuple[GpuSample, ...], long: int) -> list[Parts]:
        """Lists the fields of a GPU, the memory of further ones behind its own."""
        return [
            self._gpu_memory("GPU ", gpu, long),
            *(self._gpu_memory(f"GPU {n} ", other, 5) for n, other in enumerate(others, 2)),
            _field("load", f"{gpu.utilisation:>3.0f} %" if gpu.utilisation is not None else f"{NA:>5}"),
            _field("free", size(gpu.free, "GB")),
            _field("peak", size(self.speed.peak, "GB") if self.speed.peak is not None else "–"),
            [(f"{gpu.power_watts:>3.0f} W" if gpu.power_watts is not None else NA, "")],
            [(gpu.name or "", "$text-muted")],
        ]

    def _gpu_memory(self, label: str, gpu: GpuSample, long: int) -> Parts:
        share = gpu.used / gpu.total if gpu.used is not None and gpu.total else None
        memory = f"{size(gpu.used, 'GB'):>5}/{size(gpu.total, 'GB')} GB "
        return [(label, "$primary bold"), (memory, ""), *self._bar(share, long)]

    def _run(self, width: int) -> list[Parts]:
        speed = self.speed
        marks = sparkline(speed.history, 20 if width > 110 else 8, self.ascii_only)
        now = "$success bold" if speed.now else "$text-muted"
        read, written = (
            compact_count(count) if count is not None else "–" for count in (speed.read, speed.written)
        )
        return [
            [(f"{rate(speed.now):>5}", now), (" tok/s ", ""), (marks, "$success")],
            _field("mean", f"{rate(speed.mean):>5}"),
            _field("TTFT", f"{duration(speed.first):>6}"),
            _field("in", f"{read:>5}"),
            _field("out", f"{written:>5}"),
        ]

    def _bar(self, fraction: float | None, width: int) -> Parts:
        level = fraction or 0.0
        style = "$primary" if level < 0.85 else "$warning" if level < 0.95 else "$error"
        edges = ("▕", "$text-muted"), ("▏", "$text-muted")
        return [edges[0], (bar(fraction, width, self.ascii_only), style), edges[1]]


def _field(label: str, value: str) -> Parts:
    return [(f"{label} ", "$text-muted"), (value, "")]


def _fit(fields: list[Parts], width: int) -> Parts:
    """Joins fields by dots, as many as the line holds, with an ellipsis for the others."""
    line: Parts = []
    used = 0
    fields = [parts for parts in fields if any(text.strip() for text, _ in parts)]
    for n, parts in enumerate(fields, 1):
        cells = sum(cell_len(text) for text, _ in parts) + (3 if line else 0)
        if used + cells + (2 if n < len(fields) else 0) > width:
            return [*line, (" …", "$text-muted")]
        line += [(" · ", "$text-muted"), *parts] if line else parts
        used += cells
    return line
