"""Measures the start of a process, from nothing to a model's first tokens, phase by phase.

`measure` runs this module in a process of its own, which does what `edge-tui run` does:
`python -m edge_tui.bench.start MODEL PRECISION DEVICE CORES BEGAN`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from edge_tui.bench.goal import Goal
from edge_tui.bench.job import BenchError
from edge_tui.engine import events
from edge_tui.engine.decode import kernel_process
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.machine.torch_libraries import begin_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.port import Engine

TOKENS = 64
"""New tokens of a run."""
SHORT, LONG = 32, 640
"""Tokens of the prompts: of the first runs, and of one whose context has another capacity."""
_POLL = 0.005
"""Seconds between looks at events, as `edge-tui run` has it: each takes the interpreter from the import."""
_IMPORT = """
import gc
import time
began = time.perf_counter()
gc.disable()  # as the engine imports it
import torch.nn.functional
print(time.perf_counter() - began)
"""
_imports: list[float] = []
"""Seconds of the imports of torch so far: one before the first case, and one after each."""


@dataclass(frozen=True, slots=True)
class Case:
    """Describes one way to start.

    Attributes:
        model: A key of `random_models.CONFIGS`.
        precision: To load it in.
        must, aim: Seconds to the first token beyond importing torch.
        cold: True begins without compiled kernels.
        cores: Processors that the process may use; 0 for all.
    """

    model: str
    precision: str
    must: float
    aim: float
    cold: bool = False
    cores: int = 0

    @property
    def title(self) -> str:
        """Names the case."""
        kernels = "cold kernels" if self.cold else "warm"
        return f"{self.model} {self.precision}, {kernels}{f', {self.cores} cores' if self.cores else ''}"

    @property
    def goal(self) -> Goal:
        """The figure to reach."""
        name = f"start to first token beyond importing torch, {self.title}"
        return Goal(name, "s", self.must, self.aim, at_least=False)


SMALL, LARGE = "qwen2-0.5b", "qwen2-7b"
CASES = (
    Case(SMALL, "4bit", 2.0, 1.0),
    Case(SMALL, "bfloat16", 5.0, 2.5, cold=True),
    Case(SMALL, "bfloat16", 10.0, 6.0, cold=True, cores=4),
    Case(LARGE, "int8", 6.0, 3.0),
    Case(LARGE, "4bit", 6.0, 3.0),
    Case(SMALL, "bfloat16", 2.0, 1.0),
    Case(LARGE, "bfloat16", 6.0, 3.0),
)


def length_goal(model: str) -> Goal:
    """Returns the figure of a context length's first use."""
    return Goal(f"first use of a context length over the second, {model}", "s", 0.1, at_least=False)


def measure(case: Case, model: str, device: str) -> dict[str, Any]:
    """Starts a process that decodes with a model, and says where its time went.

    Another start comes before it, so that what it reads is in the page cache: libraries, compilers, weights.

    Args:
        case: The way to start.
        model: The case's model as the engine finds it.
        device: The device.

    Returns:
        Seconds of each phase, as `phases` has them, without importing torch, and `torch` for that, which is
        measured between cases: the shorter one of before and after counts.

    Raises:
        BenchError: the process failed.
    """
    _start_once(model, case.precision, device, case.cold)
    before = _imports[-1] if _imports else _importing_torch()
    times = _start(model, case.precision, device, case.cold, case.cores)
    torch = min(before, _importing_torch())
    return times | {name: times[name] - torch for name in ("load", "total")} | {"torch": torch}


@cache
def _start_once(model: str, precision: str, device: str, cold: bool) -> None:
    """Starts a process that does all that a measured one does, once for each kind of start."""
    _start(model, precision, device, cold, 0)


def _start(model: str, precision: str, device: str, cold: bool, cores: int) -> dict[str, Any]:
    """Starts a process that decodes with a model; without compiled kernels if `cold`. Returns `phases`."""
    with tempfile.TemporaryDirectory(prefix="edge-tui-start-") as folder:
        environment = {**os.environ, "TRITON_CACHE_DIR": folder} if cold else dict(os.environ)
        command = [sys.executable, "-m", __spec__.name, model, precision, device, str(cores)]
        lines = _output([*command, str(time.time())], environment).splitlines()
    times: dict[str, Any] = json.loads(lines[-1])
    return times


def _importing_torch() -> float:
    """Measures the seconds of importing torch in a process of its own."""
    _imports.append(float(_output([sys.executable, "-c", _IMPORT], os.environ)))
    return _imports[-1]


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"The process under test ended with {done.returncode}: {last}")
    return done.stdout


class _Watch:
    """Runs requests on an engine and keeps the time of the first event of each kind."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.times: dict[str, float] = {}

    def run(self, prompt: int, number: int) -> tuple[float, float]:
        """Decodes after a prompt of so many tokens, which begins with a number.

        Returns:
            Seconds to the first token, and from there to the end.
        """
        ids = (number, *[0] * (prompt - 1))
        self._engine.submit(Request("", "greedy", ids=ids, max_length=TOKENS))
        first = 0.0
        while True:
            for event in self._engine.poll():
                self._note(event)
                if isinstance(event, events.Failed | events.Died):
                    raise BenchError(event.message)
                if isinstance(event, events.FirstToken):
                    first = time.perf_counter()
                if isinstance(event, events.Finished):
                    return event.time_to_first_token, time.perf_counter() - first
            time.sleep(_POLL)

    def _note(self, event: events.Event) -> None:
        now, name = time.time(), type(event).__name__
        if isinstance(event, events.Progress):
            name = event.what
        if name == "compile" and "Started" not in self.times:
            self.times[name] = now  # the last one; those after the first token wait for later steps
        self.times.setdefault(name, now)


def phases(engine: Engine, began: float) -> dict[str, float]:
    """Decodes some runs on a new engine and measures where the time goes until each is at full speed.

    Returns:
        In seconds: `python` until the engine loads, `load`, `kernels` that are waited for, `prompt` until it
        is read, `first` until the first token after it, `total` of these, `capture` for what the first run
        takes longer than the second after its first token, `length` for what the first run in a longer
        context takes longer than the second there.
    """
    watch = _Watch(engine)
    seconds = [watch.run(prompt, number) for number, prompt in enumerate((SHORT, SHORT, LONG, LONG))]
    at = watch.times
    compiled = at.get("compile", at["Loaded"])
    return {
        "python": at["Loading"] - began,
        "load": at["Loaded"] - at["Loading"],
        "kernels": compiled - at["Loaded"],
        "prompt": at["Started"] - compiled,
        "first": at["FirstToken"] - at["Started"],
        "total": at["FirstToken"] - began,
        "capture": seconds[0][1] - seconds[1][1],
        "length": sum(seconds[2]) - sum(seconds[3]),
    }


def _main(model: str, precision: Any, device: str, cores: str, began: str) -> None:
    """Prints the phases of a start that began at a time."""
    if int(cores):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    kernel_process.start_early()  # as commands do
    begin_libraries(device)

    from edge_tui.engine.local import LocalEngine

    engine = LocalEngine({"model": ModelSpec(model, precision, device)})
    try:
        print(json.dumps(phases(engine, float(began))))
    finally:
        engine.close(timeout=30.0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
