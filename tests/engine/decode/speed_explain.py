"""Measures explanations, and what a record adds to a step: `python -m tests.engine.decode.speed_explain`.

On a CPU the shipped pair of models answers; on a GPU models of random weights and true size, as the benches
have them. "last" is the last token of a run whose context is there, "any" any token of it, "anew" one of a
run whose context is gone, so that the whole text is read again. Milliseconds are those of the engine's
thread: from the question until it is answered, the best and the median of some.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.bench.edge_runner import load, prompt_ids, without_eos
from edge_tui.bench.random_models import CONFIGS, write_random
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.events import Explained, Failed, Finished
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.loader import LoadedModel
from edge_tui.engine.port import ModelSpec, Question, Request
from tests.engine.decode.explaining import question_at
from tests.engine.watch import Watched, watch

STRATEGIES = ("top_p", "greedy", "dry", "mirostat", "contrastive", "dry+typical+temperature+min_p", "beam")
PROMPT = 64
"""Tokens before the answer."""
DEMO = {"model": "demo/expert", "amateur": "demo/amateur", "draft": "demo/amateur"}


class Answers:
    """An engine whose answers are waited for without polling, which would take the thread's time.

    Args:
        model: A key of `CONFIGS`; "" is the shipped pair.
        precision: Of the weights.
        device: Where.
        folder: For the random model.
    """

    def __init__(self, model: str, precision: Any, device: str, folder: Path) -> None:
        path = str(write_random(folder / model, model)) if model else ""
        roles = {role: ModelSpec(path or demo, precision, device) for role, demo in DEMO.items()}
        self._is_random, self._woken = bool(model), threading.Event()
        self.loaded: dict[str, LoadedModel] = {}
        self.engine = LocalEngine(roles, self._load, self._woken.set)

    def _load(self, spec: ModelSpec, *callbacks: Any) -> LoadedModel:
        loaded, _ = load(spec, *callbacks, random_weights=self._is_random)
        self.loaded[spec.name] = replace(loaded, checkpoint=without_eos(loaded.checkpoint))
        return self.loaded[spec.name]

    def run(self, strategy: str, length: int, seed: int) -> tuple[Request, Watched]:
        """Runs a prompt of its own to the end."""
        if not self.loaded:
            watch(self.engine, Request("a", max_length=1), timeout=600)
        tokenizer = next(iter(self.loaded.values())).tokenizer
        ids = tuple(prompt_ids(tokenizer, PROMPT, seed))
        request = Request("", strategy, ids=ids, seed=seed, max_length=length)
        seen = watch(self.engine, request, timeout=600)
        return request, seen

    def milliseconds(self, question: Question) -> float:
        """Asks, and waits for the answer."""
        began = time.perf_counter()
        number = self.engine.explain(question)
        while True:
            self._woken.wait()
            self._woken.clear()
            for event in self.engine.poll():
                if isinstance(event, Failed) and event.run == number:
                    raise SystemExit(event.message)
                if isinstance(event, Explained) and event.question == number:
                    return (time.perf_counter() - began) * 1e3


def explain(answers: Answers, strategy: str, length: int, rounds: int) -> None:
    """Prints a line of one strategy."""
    places = random.Random(1)
    request, run = answers.run(strategy, length, 1)
    count = len(run.ids)

    def ask(index: int) -> float:
        return answers.milliseconds(question_at(request, run, index))

    first = ask(count - 1)
    last = [ask(count - 1) for _ in range(rounds)]
    some = [ask(places.randrange(count)) for _ in range(rounds)]
    anew = []
    for number in range(3):
        answers.run("greedy", 1, 2 + number)  # its context takes the place of the other
        anew.append(ask(count - 2 - number))
    columns = (f"{min(each):7.1f} {statistics.median(each):7.1f}" for each in (last, some, anew))
    print(f"{strategy:32} {first:7.1f}   {'   '.join(columns)}", flush=True)


def unrecorded(runner: StepRunner) -> tuple[Tensor, Tensor]:
    """Takes the place of `StepRunner.build_record`: the same shapes, and nothing is computed."""
    runner.buffers.step.add_(1)
    return _records[runner]


_records: dict[StepRunner, tuple[Tensor, Tensor]] = {}
_build: Callable[[StepRunner], tuple[Tensor, Tensor]] = StepRunner.build_record


@contextmanager
def without_records() -> Iterator[None]:
    """Takes steps inside whose record is computed once for each runner."""

    def build(runner: StepRunner) -> tuple[Tensor, Tensor]:
        if runner not in _records:
            _records[runner] = _build(runner)
            return _records[runner]
        return unrecorded(runner)

    StepRunner.build_record = build  # type: ignore[method-assign]
    try:
        yield
    finally:
        StepRunner.build_record = _build  # type: ignore[method-assign]
        _records.clear()


def record(answers: Answers, strategy: str, rounds: int) -> None:
    """Prints the microseconds of a step with its record and without, measured in turn."""

    def step(seed: int) -> float:
        answers.run(strategy, 40, seed)
        _, seen = answers.run(strategy, 400, seed + 1)
        finished: Finished = seen.finished
        return finished.seconds / (finished.new_tokens - 1) * 1e6

    times: tuple[list[float], list[float]] = [], []
    for each in range(rounds):
        for spent, context in zip(times, (nullcontext, without_records), strict=True):
            answers.engine._prefix_cache.clear()  # and with it what was captured  # noqa: SLF001
            gc.collect()
            with context():
                spent.append(step(10 * each))
    on, off = map(min, times)
    print(f"{strategy:32} {on:8.1f} {off:8.1f} {on - off:+7.1f} µs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda:0" if on_gpu else "cpu")
    parser.add_argument("--model", default="qwen2-0.5b" if on_gpu else "", choices=("", *CONFIGS))
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tokens", type=int, default=1000, help="length of the run")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES)
    parser.add_argument("--every", action="store_true", help="every strategy that there is")
    parser.add_argument("--record", action="store_true", help="what a record adds to a step, and no more")
    asked = parser.parse_args()
    names = [each.name for each in decoders.strategies()] if asked.every else asked.strategies
    with tempfile.TemporaryDirectory() as folder:
        answers = Answers(asked.model, asked.precision, asked.device, Path(folder))
        try:
            if asked.record:
                print(f"{'step':32} {'on':>8} {'off':>8}")
            else:
                print(f"{'ms, best and median':32} {'first':>7}   {'last':>15}   {'any':>15}   {'anew':>15}")
            for name in names:
                if asked.record:
                    record(answers, name, asked.rounds)
                else:
                    explain(answers, name, asked.tokens, asked.rounds)
        finally:
            answers.engine.close(30.0)


if __name__ == "__main__":
    main()
