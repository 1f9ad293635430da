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

Part = tuple[str, str]


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
    if peak is None and run.active and engine is not None:
        peak = engine.memory().peak
    return Speed(
        now=meter.now,
        mean=(finished.tokens_per_second if finished is not None else None) or meter.mean,
        history=tuple(meter.history),
        first=run.first_token,
        read=started.prompt_tokens if started is not None else None,
        written=meter.total if started is not None else None,
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
        self.border_title = "gauge"

    def render(self) -> Content:
        width = self.content_size.width
        machine = self._machine(width)
        return Content.assemble(*_fit(machine, width), "\n", *_fit(self._run(width), width))

    def _machine(self, width: int) -> list[list[Part]]:
        sample = self.sample
        if sample is None:
            return [[(self.absent, "$text-muted")]]
        if sample.gpu is not None and self.on_gpu:
            return self._gpu(sample.gpu, width)
        long = 20 if width > 110 else 10
        share = sample.ram_used / sample.ram_total if sample.ram_total else 0.0
        used, total = size(sample.ram_used, "GB"), size(sample.ram_total, "GB")
        return [
            [
                ("CPU ", "$primary bold"),
                (f"{sample.cpu_percent:>3.0f} % ", ""),
                *self._bar(sample.cpu_percent / 100, long),
            ],
            [("process ", "$text-muted"), (f"{size(sample.process_rss):>7}", "")],
            [("memory ", "$text-muted"), (f"{used}/{total} GB ", ""), *self._bar(share, long)],
            [("free ", "$text-muted"), (size(sample.ram_total - sample.ram_used), "")],
        ]

    def _gpu(self, gpu: GpuSample, width: int) -> list[list[Part]]:
        long = 20 if width > 110 else 10
        share = gpu.used / gpu.total if gpu.used is not None and gpu.total else None
        used = size(gpu.used, "GB") if gpu.used is not None else NA
        total = size(gpu.total, "GB") if gpu.total is not None else NA
        load = f"{gpu.utilisation:>3.0f} %" if gpu.utilisation is not None else f"{NA:>5}"
        power = f"{gpu.power_watts:>3.0f} W" if gpu.power_watts is not None else NA
        peak = size(self.speed.peak, "GB") if self.speed.peak is not None else "–"
        return [
            [("GPU ", "$primary bold"), (f"{used:>5}/{total} GB ", ""), *self._bar(share, long)],
            [("load ", "$text-muted"), (load, "")],
            [("free ", "$text-muted"), (size(gpu.free, "GB") if gpu.free is not None else NA, "")],
            [("peak ", "$text-muted"), (peak, "")],
            [("", ""), (power, "")],
            [(gpu.name or "", "$text-muted")],
        ]

    def _run(self, width: int) -> list[list[Part]]:
        speed = self.speed
        long = 20 if width > 110 else 8
        marks = sparkline(speed.history, long, self.ascii_only)
        read = compact_count(speed.read) if speed.read is not None else "–"
        written = compact_count(speed.written) if speed.written is not None else "–"
        now = "$success bold" if speed.now else "$text-muted"
        return [
            [(f"{rate(speed.now):>5}", now), (" tok/s ", ""), (marks, "$success")],
            [("mean ", "$text-muted"), (f"{rate(speed.mean):>5}", "")],
            [("TTFT ", "$text-muted"), (f"{duration(speed.first):>6}", "")],
            [("in ", "$text-muted"), (f"{read:>5}", "")],
            [("out ", "$text-muted"), (f"{written:>5}", "")],
        ]

    def _bar(self, fraction: float | None, width: int) -> list[Part]:
        style = (
            "$primary" if fraction is None or fraction < 0.85 else "$warning" if fraction < 0.95 else "$error"
        )
        return [
            ("▕", "$text-muted"),
            (bar(fraction, width, self.ascii_only), style),
            ("▏", "$text-muted"),
        ]


def _fit(fields: list[list[Part]], width: int) -> list[Part]:
    """Joins fields by dots, as many as the line holds."""
    line: list[Part] = []
    used = 0
    for cells in fields:
        if not any(text.strip() for text, _ in cells):
            continue
        cells_needed = sum(cell_len(text) for text, _ in cells) + (3 if line else 0)
        if used + cells_needed > width:
            break
        if line:
            line.append((" · ", "$text-muted"))
        line += cells
        used += cells_needed
    return line
