from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from edge_tui import decoders
from edge_tui.engine.port import Request
from edge_tui.machine.nvml import GpuSample
from edge_tui.tui.session import Meter, Run
from edge_tui.tui.widgets.gauge import Gauge, Speed, speed_of
from edge_tui.util import formatting
from tests.tui.engines import FixedTelemetry
from tests.tui.transcripts import started


class Bench(App[None]):
    def compose(self) -> ComposeResult:
        yield Gauge()


async def lines(
    gpu: GpuSample | None, speed: Speed | None = None, others: tuple[GpuSample, ...] = ()
) -> list[str]:
    app = Bench()
    async with app.run_test(size=(120, 10)):
        gauge = app.query_one(Gauge)
        gauge.on_gpu = gpu is not None
        gauge.sample = replace(FixedTelemetry().sample, gpu=gpu, others=others)
        gauge.speed = speed or Speed()
        return gauge.render().plain.split("\n")


async def test_a_gpu_that_tells_nothing_is_not_available() -> None:
    first, second = await lines(GpuSample())
    assert "GPU   n/a/n/a GB" in first
    assert first.count("n/a") >= 4
    assert "tok/s" in second


async def test_each_gpu_has_its_memory() -> None:
    gpus = [GpuSample("card", used * 10**9, (80 - used) * 10**9, 80 * 10**9) for used in (12, 7, 79)]
    first, _ = await lines(gpus[0], others=tuple(gpus[1:]))
    shown = "GPU  12.0/80.0 GB", "GPU 2   7.0/80.0 GB", "GPU 3  79.0/80.0 GB"
    places = [first.index(text) for text in shown]
    assert places == sorted(places)
    assert len(first) <= 120


async def test_without_a_gpu_the_machine_is_shown() -> None:
    first, _ = await lines(None)
    assert "CPU  23 %" in first
    assert "1.2 GB" in first
    assert "5.4/16.0 GB" in first


async def test_nothing_moves_sideways_while_numbers_change() -> None:
    slow = Speed(9.87, 8.5, (1.0,), 0.038, 7, 3)
    fast = Speed(2012.4, 1890.0, (1.0, 3.0, 2.0), 1.25, 12_345, 99_999)
    columns = [
        [line.index(word) for word in ("tok/s", "mean", "TTFT", "in ", "out")]
        for line in [(await lines(None, speed))[1] for speed in (Speed(), slow, fast)]
    ]
    assert columns[0] == columns[1] == columns[2]


@pytest.mark.parametrize(("strategy", "written"), [("top_p", 257), ("contrastive_search", 256)])
def test_a_token_that_was_only_proposed_is_not_written(strategy: str, written: int) -> None:
    meter = Meter(lambda: 0.0)
    run = Run(id=1, request=Request("a"), meter=meter, decoder=decoders.find(strategy))
    assert speed_of(run, None).written is None
    run.started = started()
    assert speed_of(run, None).written == 0
    meter.add(257)
    assert speed_of(run, None).written == written


def test_the_first_arrival_belongs_to_the_prefill() -> None:
    now = 100.0
    meter = Meter(lambda: now)
    meter.add(4)
    assert meter.mean is None
    for _ in range(20):
        now += 0.1
        meter.add(5)
    assert meter.total == 104
    assert abs((meter.mean or 0) - 50) < 1e-6
    assert abs((meter.now or 0) - 50) < 6
    assert all(abs(rate - 50) < 1e-6 for rate in meter.history)


def test_a_meter_that_begins_anew_counts_from_the_next_arrival() -> None:
    now = 100.0
    meter = Meter(lambda: now)
    for seconds in (0.0, 0.5, 8.0):  # kernels are compiled meanwhile
        now += seconds
        meter.add(2)
    meter.begin_anew()
    assert meter.mean is None
    now += 3.0
    meter.add(4)
    for _ in range(20):
        now += 0.1
        meter.add(5)
    assert meter.total == 110
    assert abs((meter.mean or 0) - 50) < 1e-6
    assert all(abs(rate - 50) < 1e-6 for rate in meter.history)


def test_what_arrives_in_one_piece_has_no_rate() -> None:
    now = 100.0
    meter = Meter(lambda: now)
    for _ in range(3):
        now += 1e-5
        meter.add(2)
    assert meter.now is None
    assert meter.mean is None
    now += 0.1
    meter.add(6)
    assert abs((meter.now or 0) - 100) < 1


@given(st.floats(-1, 2), st.integers(0, 40), st.booleans())
def test_bars_have_their_width(fraction: float, width: int, ascii_only: bool) -> None:
    assert len(formatting.bar(fraction, width, ascii_only)) == width
    assert len("".join(formatting.thin_bar(fraction, width, ascii_only))) == width


@given(st.lists(st.floats(0, 1e5), max_size=40), st.integers(1, 24))
def test_sparklines_have_their_width(values: list[float], width: int) -> None:
    assert len(formatting.sparkline(values, width)) == width


@given(st.text(), st.integers(0, 30))
def test_clipped_text_fits(text: str, width: int) -> None:
    from rich.cells import cell_len

    assert cell_len(formatting.clip(text, width)) <= width


def test_a_path_keeps_its_end() -> None:
    assert formatting.clip_path("/a/b/models/qwen", 12) == "…models/qwen"
    assert formatting.clip_path("Qwen/Qwen2.5-0.5B", 12) == "Qwen/Qwen2.…"
    assert formatting.clip_path("/模型/模型", 7) == "…/模型"
