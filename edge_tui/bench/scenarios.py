"""Lists the scenarios of `edge-tui bench figures`, the important ones first, and the figures of each."""

from __future__ import annotations

import time
from functools import partial
from math import sqrt
from statistics import NormalDist
from typing import Any

from edge_tui.bench import start
from edge_tui.bench.edge_runner import NAME, prompt_ids
from edge_tui.bench.goal import Goal
from edge_tui.bench.job import Job
from edge_tui.bench.random_models import CONFIGS, STD
from edge_tui.bench.session import Session
from edge_tui.bench.targets import BF16, GREEDY, Figure, FigureTable, Options, Scenario, Work
from edge_tui.bench.transformers_runner import KINDS
from edge_tui.engine.models.device_memory import release_cached_memory

EAGER, STATIC = KINDS["eager"], KINDS["static"]
SMALL, MIDDLE, LARGE, DEMO = start.SMALL, "llama-3.2-1b", start.LARGE, "demo/expert"
MIXTURE = "qwen3-30b-a3b"
FAMILIES = {"gemma-2-2b": (0.65, 0.78), "olmo-2-1b": (0.6, 0.7), "gemma-3-1b": (0.45, 0.6)}
"""Models of later families, with the shares of the floor that they must and should reach."""
BEAM, CONTRASTIVE = Job("beam", tokens=128), Job("contrastive")
LOOKAHEAD = 4
RATES = (0.6, 0.8, 0.89)
"""Acceptances at which speculation is measured; the last is about the most that a temperature of 5 gives."""
VERIFY = Job("greedy", batch=LOOKAHEAD + 1)
FAR, NEAR = Job("greedy", prompt=4096), Job("greedy", prompt=256)
GUIDED = Job("cfg"), Job("cad")
WIDE = [Job(strategy, {"temperature": 1.5}) for strategy in ("top_p", "top_k", "min_p", "typical")]

_most = partial(Goal, at_least=False)


def _measuring(model: str, precision: Any, *jobs: Job, **more: Any) -> Work:
    return lambda table, options: table.measure(model, precision, *jobs, **more, **options)


def _quotient(one: tuple[Any, ...], other: tuple[Any, ...]) -> Figure:
    """Divides one step by another, each as of `FigureTable.step`."""
    return lambda table: table.step(*one) / table.step(*other)


def _field(name: str, *row: Any, times: float = 1.0) -> Figure:
    """Reads a field of a row, as of `FigureTable.row`."""
    return lambda table: times * float(table.row(*row)[name])


def _beams_over_peer(model: str) -> Figure:
    return _field("ratio", model, BF16, BEAM, EAGER)


def _value(name: str) -> Figure:
    return lambda table: table.values[name]


def _long_context(table: FigureTable) -> float:
    far, near = (table.row(LARGE, prompt=job.prompt) for job in (FAR, NEAR))
    return float(far["step"] / (near["step"] + far["floor"] - near["floor"]))


def _over_greedy(job: Job) -> Figure:
    return lambda table: (table.step(SMALL, BF16, job) - table.step(SMALL)) * 1e6


def _over_two(job: Job) -> Figure:
    return lambda table: table.step(LARGE, BF16, job) / (2 * table.step(LARGE))


def _over_both(table: FigureTable) -> float:
    return table.step(LARGE, BF16, CONTRASTIVE) / (table.step(SMALL) + table.step(LARGE))


def _with_second(*jobs: Job) -> Work:
    """Measures the small model, then the large one with the small one beside it."""

    def work(table: FigureTable, options: Options) -> None:
        table.measure(SMALL, BF16, GREEDY, **options)
        table.measure(LARGE, BF16, *jobs, second=SMALL, **options)

    return work


def _at_acceptance(rate: float) -> Job:
    """Makes a job of speculation whose temperature gives an acceptance rate.

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


SPECULATIVE = {rate: _at_acceptance(rate) for rate in RATES}


def _share_of_ideal(rate: float) -> Figure:
    def value(table: FigureTable) -> float:
        # Checking k proposals reads what a batch of k + 1 reads, and one more.
        ideal = LOOKAHEAD * table.step(SMALL) + table.step(LARGE, BF16, VERIFY)
        tokens_per_second = float(table.row(LARGE, BF16, SPECULATIVE[rate])["tokens_per_second"])
        return tokens_per_second * ideal / tokens_per_step(rate)

    return value


def _families(table: FigureTable, options: Options) -> None:
    for model in FAMILIES:
        table.measure(model, BF16, GREEDY, **options)


def _screen(table: FigureTable, options: Options) -> None:
    from edge_tui.bench import app

    table.values["screen"] = app.ratio(app.measure(20, SMALL)["rates"])


def _starts(table: FigureTable, options: Options) -> None:
    session = table.session
    rows = session.results.head["starts"] = []
    for case in start.CASES:
        session.progress.say(case.title)
        with session.noting_errors(case.title):
            times = start.measure(case, session.model(case.model, True).name, session.device)
            rows.append({"start": case.title} | times)
            table.values |= {case.title: times["total"], f"length {case.model}": times["length"]}
            session.results.save()
    for model in (SMALL, LARGE):
        table.values[model] = _start(session, model)


def _start(session: Session, name: str) -> float:
    """Measures seconds from `load` to the first token at full speed, beyond making the weights.

    The model is loaded, used, freed and loaded again: the second time, with kernels cached, counts.
    """
    edge = session.edge_runner(session.model(name, True), BF16)
    job = Job("greedy", tokens=64)
    try:
        tokenizer = edge.load().tokenizer
        edge.decode(job, prompt_ids(tokenizer, job.prompt, 0))
        edge.unload()
        began = time.perf_counter()
        facts = edge.load()
        loading = time.perf_counter() - began
        cold = edge.decode(job, prompt_ids(tokenizer, job.prompt, 1))
        steady = edge.decode(job, prompt_ids(tokenizer, job.prompt, 2))
        once = cold.waited + cold.decode - steady.waited - steady.decode
        return loading - facts.weights_seconds + cold.first + max(0.0, once)
    finally:
        edge.close()
        release_cached_memory()


def _cpu_scenario(name: str, model: str, precision: str, title: str, must: float, aim: float) -> Scenario:
    def work(table: FigureTable, options: Options) -> None:
        # Other programs make the memory fast or slow for a while: many short rounds meet both.
        turns = {"rounds": 3 * options["rounds"], "seconds": options["seconds"] / 2}
        table.measure(model, precision, Job("greedy", tokens=128), peers=("eager",), **turns)

    goal = Goal(f"CPU, {title} over generate() float32", "×", must, aim)
    # Where bitsandbytes would be the peer, generate() runs in float32.
    return Scenario(name, work, {goal: _field("ratio", model, "float32", GREEDY, EAGER)}, device="cpu")


def _foreign_scenario(size: str, must: float, aim: float) -> Scenario:
    """Measures an architecture that only transformers knows, whose steps are captured."""
    model = f"hunyuan-{size}"
    goal = Goal(f"greedy bf16 in the transformers tier over generate(), {size.upper()}", "×", must, aim)
    work = _measuring(model, BF16, GREEDY, peers=("eager",))
    return Scenario(f"transformers {size.upper()}", work, {goal: _field("ratio", model, BF16, GREEDY, EAGER)})


SCENARIOS = (
    Scenario(
        "greedy 0.5B",
        _measuring(SMALL, BF16, GREEDY, peers=("eager", "static")),
        {
            Goal("greedy bf16 Qwen2-0.5B", "tok/s", 1200, 2200): _field("tokens_per_second", SMALL),
            Goal("greedy bf16 Qwen2-0.5B over generate() static + compile", "×", 3): (
                _field("ratio", SMALL, BF16, GREEDY, STATIC)
            ),
        },
    ),
    Scenario(
        "greedy 1B",
        _measuring(MIDDLE, BF16, GREEDY),
        {_most("greedy bf16 Llama-3.2-1B size", "ms/token", 1.0, 0.8): _field("step", MIDDLE, times=1e3)},
    ),
    Scenario(
        "7B",
        # The longest first: its context is kept, so that all have the same maximum.
        _measuring(LARGE, BF16, FAR, NEAR, GREEDY, BEAM),
        {
            Goal("greedy bf16 Qwen2-7B, share of the floor", "", 0.8, 0.9): (
                _field("of_floor", LARGE, BF16, GREEDY, NAME, GREEDY.prompt)
            ),
            _most("beam 4 step over greedy, 7B", "×", 1.2, 1.1): _quotient((LARGE, BF16, BEAM), (LARGE,)),
            _most("7B step at context 4,096 over step at 256 + added KV", "×", 1.1, 1.05): _long_context,
        },
    ),
    Scenario(
        "7B 4bit",
        _measuring(LARGE, "4bit", GREEDY),
        {Goal("NF4 7B over bf16 7B", "×", 1.7, 2.3): _quotient((LARGE,), (LARGE, "4bit"))},
    ),
    Scenario(
        "sampling",
        _measuring(SMALL, BF16, GREEDY, *WIDE),
        {
            _most(f"{job.strategy} at T 1.5 over greedy, 152k tokens", "µs", 40, 20): _over_greedy(job)
            for job in WIDE
        },
    ),
    Scenario(
        "contrastive",
        _with_second(GREEDY, CONTRASTIVE),
        {_most("contrastive step over both greedy steps, 7B + 0.5B", "×", 1.05, 1.0): _over_both},
    ),
    Scenario(
        "guidance",
        _measuring(LARGE, BF16, GREEDY, *GUIDED),
        {
            _most(f"{job.strategy} step over two greedy steps, 7B", "×", 0.7, 0.6): _over_two(job)
            for job in GUIDED
        },
    ),
    Scenario(
        "beams 0.5B",
        _measuring(SMALL, BF16, BEAM, peers=("eager",)),
        {Goal("beam 4 over generate(num_beams=4), 0.5B", "×", 10, 30): _beams_over_peer(SMALL)},
    ),
    Scenario(
        "beams 7B",
        _measuring(LARGE, BF16, BEAM, peers=("eager",)),
        {Goal("beam 4 over generate(num_beams=4), 7B", "×", 6, 8): _beams_over_peer(LARGE)},
    ),
    Scenario(
        "speculative",
        _with_second(VERIFY, *SPECULATIVE.values()),
        {
            Goal(
                f"speculative, k = {LOOKAHEAD}, acceptance {rate:g}, share of the ideal", "", 0.85, 0.93
            ): _share_of_ideal(rate)
            for rate in RATES
        },
    ),
    Scenario("screen", _screen, {Goal("in the TUI over headless, 0.5B", "×", 0.95, 0.99): _value("screen")}),
    Scenario(
        "start",
        _starts,
        {
            **{case.goal: _value(case.title) for case in start.CASES},
            **{start.length_goal(model): _value(f"length {model}") for model in (SMALL, LARGE)},
            **{
                _most(f"load to first captured token beyond the weights, {model}", "s", 2, 1): _value(model)
                for model in (SMALL, LARGE)
            },
        },
    ),
    Scenario(
        "7B int8",
        _measuring(LARGE, "int8", GREEDY),
        {Goal("int8 7B over bf16 7B", "×", 1.45, 1.7): _quotient((LARGE,), (LARGE, "int8"))},
    ),
    Scenario(
        "families",
        _families,
        {
            Goal(f"greedy bf16 {model}, share of the floor", "", must, aim): _field("of_floor", model)
            for model, (must, aim) in FAMILIES.items()
        },
    ),
    Scenario(
        "mixture",
        _measuring(MIXTURE, BF16, GREEDY),
        {
            Goal(f"greedy bf16 {MIXTURE}, share of the floor of the active experts", "", 0.45, 0.6): (
                _field("of_floor", MIXTURE)
            )
        },
    ),
    _foreign_scenario("0.5b", 5.0, 8.0),
    _foreign_scenario("7b", 2.7, 3.5),
    _cpu_scenario("CPU demo", DEMO, "float32", "demo expert", 1.5, 2.0),
    *(
        _cpu_scenario(f"CPU 0.5B {precision}", SMALL, precision, f"Qwen2-0.5B {precision}", must, aim)
        for precision, must, aim in (("float32", 1.2, 2.1), ("int8", 2.5, 3.7), ("4bit", 2.5, 6.0))
    ),
)
"""In order of importance."""
