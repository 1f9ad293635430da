"""How many threads a step takes: worth it or not, and at what cost it is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.models import cpu_threads
from edge_tui.engine.models.cpu_threads import choose, probe, thread_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Model:
    """Steps that take as long as they are told to for the number of threads that torch is left at."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = seconds
        self.capacity = self.length = 0
        self.steps = 0
        self.clock = 0.0

    def open(self, rows: int, capacity: int) -> Model:
        self.capacity = capacity
        return self

    def prefill(self, context: Any, ids: Any) -> None:
        self.length += 1

    def forward(self, context: Any, ids: Any) -> None:
        self.length += 1
        self.steps += 1
        assert self.length <= self.capacity
        self.clock += self.seconds[min(torch.get_num_threads(), len(self.seconds)) - 1]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Probes a model by its own clock, where nobody said how many threads to take."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def run(model: Model, counts: list[int]) -> int:
        monkeypatch.setattr(cpu_threads, "thread_counts", lambda cores: counts)
        monkeypatch.setattr(cpu_threads, "perf_counter", lambda: model.clock)
        return probe(model)  # type: ignore[arg-type]

    yield run
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ({1: 0.0015, 2: 0.00114}, 1),  # the demo: the screen would take more than that brings
        ({1: 0.0015, 2: 0.0009}, 2),
        ({1: 0.050, 2: 0.035}, 2),  # a large model leaves the screen little to do
        ({1: 0.050, 2: 0.045}, 1),
        ({1: 0.050, 2: 0.030, 4: 0.020, 8: 0.019}, 4),
        ({1: 0.050, 2: 0.060, 4: 0.030}, 4),
        ({1: 0.050}, 1),
    ],
)
def test_choosing(seconds: dict[int, float], wanted: int) -> None:
    assert choose(seconds) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"), [((0.02, 0.014), 2), ((0.014, 0.02), 1), ((0.002, 0.0016), 1)]
)
def test_measured_and_left_so(seconds: tuple[float, float], wanted: int, probed: Callable[..., int]) -> None:
    assert probed(Model(*seconds), [1, 2]) == wanted
    assert torch.get_num_threads() == wanted


def test_a_slow_model_is_not_held_up(probed: Callable[..., int]) -> None:
    model = Model(0.8, 0.6)
    probed(model, [1, 2])
    assert model.steps == 4  # two rounds of one step each


def test_many_processors_find_room(probed: Callable[..., int]) -> None:
    model = Model(0.0)
    probed(model, [1] * 10)
    assert model.steps <= model.capacity


def test_what_the_user_said_is_not_questioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert probe(Model()) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(("cores", "wanted"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_candidates(cores: int, wanted: list[int]) -> None:
    assert thread_counts(cores) == wanted
