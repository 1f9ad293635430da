"""`edge-tui bench figures`: every figure that the engine is held to, in one go, the important ones first.

Each scenario measures what some figures need; one that fails costs its own figures only, and what the time
or the device did not allow is reported as not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

from edge_tui.bench.figure_table import Book, Goal
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.random_models import CONFIGS, STD
from edge_tui.bench.session import Session
from edge_tui.bench.transformers_runner import KINDS
from edge_tui.util import logs

EAGER, STATIC = KINDS["eager"], KINDS["static"]
SMALL, MIDDLE, LARGE, DEMO = "qwen2-0.5b", "llama-3.2-1b", "qwen2-7b", "demo/expert"
BF16 = "bfloat16"
GREEDY, BEAM = Job("greedy"), Job("beam", tokens=128)
LOOKAHEAD = 4
RATES = (0.6, 0.8, 0.89)
"""Acceptances at which speculation is measured; the last is about the most that a temperature of 5 gives."""
VERIFY = Job("greedy", batch=LOOKAHEAD + 1)
FAR, NEAR = Job("greedy", prompt=4096), Job("greedy", prompt=256)
WIDE = [Job(strategy, {"temperature": 1.5}) for strategy in ("top_p", "top_k", "min_p", "typical")]

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Measurements, and the figures that come of them.

    Attributes:
        name: For `--only` and progress.
        work: Measures.
        goals: The figures.
        device: "cuda" or "cpu": where it belongs.
    """

    name: str
    work: Callable[[Book, Options], None]
    goals: tuple[Goal, ...]
    device: str = "cuda"


def _greedy(book: Book, model: str, precision: str = BF16) -> float:
    return book.row(model, precision, "greedy", prompt=GREEDY.prompt).step


def _small(book: Book, options: Options) -> None:
    book.measure(SMALL, "bfloat16", [GREEDY], peers=("eager", "static"), **options)


def _middle(book: Book, options: Options) -> None:
    book.measure(MIDDLE, "bfloat16", [GREEDY], **options)


def _large(book: Book, options: Options) -> None:
    # The longest first: its context is kept, so that all have the same maximum.
    book.measure(LARGE, "bfloat16", [FAR, NEAR, GREEDY, BEAM], **options)


def _far(book: Book) -> float:
    far = book.row(LARGE, BF16, "greedy", prompt=FAR.prompt)
    near = book.row(LARGE, BF16, "greedy", prompt=NEAR.prompt)
    return far.step / (near.step + far.floor - near.floor)


def _four(book: Book, options: Options) -> None:
    book.measure(LARGE, "4bit", [GREEDY], **options)


def _eight(book: Book, options: Options) -> None:
    book.measure(LARGE, "int8", [GREEDY], **options)


def _sampling(book: Book, options: Options) -> None:
    book.measure(SMALL, "bfloat16", [GREEDY, *WIDE], **options)


def _over_greedy(job: Job) -> Goal:
    def value(book: Book) -> float:
        return (book.row(SMALL, BF16, job.title).step - _greedy(book, SMALL)) * 1e6

    return Goal(f"{job.strategy} at T 1.5 over greedy, 152k tokens", "µs", 40, 20, value, least=False)


def _contrastive(book: Book, options: Options) -> None:
    book.measure(SMALL, "bfloat16", [GREEDY], **options)
    book.measure(LARGE, "bfloat16", [GREEDY, Job("contrastive")], second=SMALL, **options)


def _both(book: Book) -> float:
    return book.row(LARGE, BF16, "contrastive").step / (_greedy(book, SMALL) + _greedy(book, LARGE))


def _speculative(book: Book, options: Options) -> None:
    book.measure(SMALL, "bfloat16", [GREEDY], **options)
    book.measure(LARGE, "bfloat16", [VERIFY, *map(_at_acceptance, RATES)], second=SMALL, **options)


def _at_acceptance(rate: float) -> Job:
    """Speculation whose proposals are accepted at a rate, by its temperature.

    A proposal is accepted with probability `Σ min(p, q)`. Logits of random weights are independent normal
    numbers of deviation `STD · √hidden`, so with both models' hidden sizes `a` and `b` and temperature `T`
    that sum is `2 Φ(−s / 2)`, where `s = STD · √(a + b) / T`.
    """
    hidden = sum(int(CONFIGS[name][0]["hidden_size"]) for name in (SMALL, LARGE))
    temperature = STD * sqrt(hidden) / (-2 * NormalDist().inv_cdf(rate / 2))
    return Job("speculative", {"lookahead": LOOKAHEAD, "temperature": round(temperature, 3)})


def tokens_per_step(rate: float) -> float:
    """Computes the mean number of tokens of a step: the accepted proposals, and the token after them."""
    return (1 - rate ** (LOOKAHEAD + 1)) / (1 - rate)


def _of_ideal(rate: float) -> Goal:
    def value(book: Book) -> float:
        # Checking k proposals reads what a batch of k + 1 reads, and one more.
        ideal = LOOKAHEAD * _greedy(book, SMALL) + book.row(LARGE, BF16, VERIFY.title).step
        rows_per_second = book.row(LARGE, BF16, _at_acceptance(rate).title).tokens_per_second
        return rows_per_second * ideal / tokens_per_step(rate)

    return Goal(
        f"speculative, k = {LOOKAHEAD}, acceptance {rate:g}, share of the ideal", "", 0.85, 0.93, value
    )


def _screen(book: Book, options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        order = [sys.executable, "-m", "edge_tui.bench.app", "--random", SMALL, "--json", str(report)]
        done = subprocess.run(order, capture_output=True, text=True, timeout=300, check=False)
        if not report.exists():
            raise BenchError(f"The app under test ended with {done.returncode}: {done.stderr.strip()[-200:]}")
        book.values["screen"] = float(json.loads(report.read_text(encoding="utf-8"))["ratio"])


def _small_beams(book: Book, options: Options) -> None:
    book.measure(SMALL, "bfloat16", [BEAM], peers=("eager",), **options)


def _large_beams(book: Book, options: Options) -> None:
    book.measure(LARGE, "bfloat16", [BEAM], peers=("eager",), **options)


def _starts(book: Book, options: Options) -> None:
    for model in (SMALL, LARGE):
        book.start(model)


def _on_cpu(model: str, precision: Any) -> Callable[[Book, Options], None]:
    def work(book: Book, options: Options) -> None:
        # Memory that others use, too, is fast or slow for a while: each is to meet both.
        turns = {"rounds": 3 * options["rounds"], "seconds": options["seconds"] / 2}
        book.measure(model, precision, [Job("greedy", tokens=128)], peers=("eager",), **turns)

    return work


def _over_generate(model: str) -> Callable[[Book], float]:
    return lambda book: book.row(model, "float32", "greedy", EAGER).ratio


def _noted(name: str) -> Callable[[Book], float]:
    return lambda book: book.noted(name)


SCENARIOS = (
    Scenario(
        "greedy 0.5B",
        _small,
        (
            Goal(
                "greedy bf16 Qwen2-0.5B",
                "tok/s",
                1200,
                2200,
                lambda book: book.row(SMALL, BF16, "greedy").tokens_per_second,
            ),
            Goal(
                "greedy bf16 Qwen2-0.5B over generate() static + compile",
                "×",
                3,
                None,
                lambda book: book.row(SMALL, BF16, "greedy", STATIC).ratio,
            ),
        ),
    ),
    Scenario(
        "greedy 1B",
        _middle,
        (
            Goal(
                "greedy bf16 Llama-3.2-1B size",
                "ms/token",
                1.0,
                0.8,
                lambda book: _greedy(book, MIDDLE) * 1e3,
                least=False,
            ),
        ),
    ),
    Scenario(
        "7B",
        _large,
        (
            Goal(
                "greedy bf16 Qwen2-7B, share of the floor",
                "",
                0.8,
                0.9,
                lambda book: book.row(LARGE, BF16, "greedy", prompt=GREEDY.prompt).of_floor,
            ),
            Goal(
                "beam 4 step over greedy, 7B",
                "×",
                1.2,
                1.1,
                lambda book: book.row(LARGE, BF16, "beam").step / _greedy(book, LARGE),
                least=False,
            ),
            Goal("7B step at context 4,096 over step at 256 + added KV", "×", 1.1, 1.05, _far, least=False),
        ),
    ),
    Scenario(
        "7B 4bit",
        _four,
        (
            Goal(
                "NF4 7B over bf16 7B",
                "×",
                1.5,
                2.3,
                lambda book: _greedy(book, LARGE) / _greedy(book, LARGE, "4bit"),
            ),
        ),
    ),
    Scenario("sampling", _sampling, tuple(map(_over_greedy, WIDE))),
    Scenario(
        "contrastive",
        _contrastive,
        (Goal("contrastive step over both greedy steps, 7B + 0.5B", "×", 1.05, 1.0, _both, least=False),),
    ),
    Scenario(
        "beams 0.5B",
        _small_beams,
        (
            Goal(
                "beam 4 over generate(num_beams=4), 0.5B",
                "×",
                10,
                30,
                lambda book: book.row(SMALL, BF16, "beam", EAGER).ratio,
            ),
        ),
    ),
    Scenario(
        "beams 7B",
        _large_beams,
        (
            Goal(
                "beam 4 over generate(num_beams=4), 7B",
                "×",
                6,
                8,
                lambda book: book.row(LARGE, BF16, "beam", EAGER).ratio,
            ),
        ),
    ),
    Scenario("speculative", _speculative, tuple(map(_of_ideal, RATES))),
    Scenario(
        "screen",
        _screen,
        (Goal("in the TUI over headless, 0.5B", "×", 0.95, 0.99, _noted("screen")),),
    ),
    Scenario(
        "start",
        _starts,
        tuple(
            Goal(
                f"load to first captured token beyond the weights, {model}",
                "s",
                2,
                1,
                _noted(f"start {model}"),
                least=False,
            )
            for model in (SMALL, LARGE)
        ),
    ),
    Scenario(
        "7B int8",
        _eight,
        (
            Goal(
                "int8 7B over bf16 7B",
                "×",
                1.45,
                1.7,
                lambda book: _greedy(book, LARGE) / _greedy(book, LARGE, "int8"),
            ),
        ),
    ),
    Scenario(
        "CPU demo",
        _on_cpu(DEMO, "float32"),
        (Goal("CPU, demo expert over generate() float32", "×", 1.5, 2.0, _over_generate(DEMO)),),
        device="cpu",
    ),
    *(
        Scenario(
            f"CPU 0.5B {precision}",
            _on_cpu(SMALL, precision),
            (
                Goal(
                    f"CPU, Qwen2-0.5B {precision} over generate() float32",
                    "×",
                    must,
                    aim,
                    _over_generate(SMALL),
                ),
            ),
            device="cpu",
        )
        for precision, must, aim in (("float32", 1.2, 2.1), ("int8", 2.5, 3.7), ("4bit", 2.5, 6.0))
    ),
)
"""In order of importance."""


def run(session: Session, *, rounds: int, seconds: float, only: str = "") -> None:
    """Measures the figures of the session's device.

    Args:
        session: Of the bench.
        rounds: Counted decodes of each contestant.
        seconds: Most time for one decode.
        only: Scenarios whose name holds this text.
    """
    book = Book(session)
    here = session.device.partition(":")[0]
    for scenario in SCENARIOS:
        for goal in scenario.goals:
            book.enter(goal, known=False)
    scenarios = [s for s in SCENARIOS if s.device == here and only.lower() in s.name.lower()]
    session.progress.total = len(scenarios)
    for scenario in scenarios:
        session.progress.step(scenario.name)
        if session.progress.left <= 0:
            session.ledger.note(f"{scenario.name}: not measured, the time was up.")
            continue
        try:
            scenario.work(book, {"rounds": rounds, "seconds": seconds})
        except BenchError as error:
            session.ledger.note(f"{scenario.name}: {error}")
        except Exception as error:  # one scenario must not cost the others
            session.ledger.note(f"{scenario.name} failed with {logs.summary(error)}")
        session.free()
        for goal in scenario.goals:
            book.enter(goal)
