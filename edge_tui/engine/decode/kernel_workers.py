"""`python -m edge_tui.engine.decode.kernel_workers` compiles the kernels of the run on its standard input.

It lists them, and each is compiled in a copy of this process as soon as it is found: that has torch and
Triton already. While they are imported another copy waits for the job and reads the models' tokenizers. A
line of its output is "load N", "first N", "all N" or "done I": the number of kernels that loading waits for,
that of them and those of the first token, that of all, and a kernel that is compiled. `kernel_build` gives
it the job.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.decode.kernel_process import PHASES
from edge_tui.engine.ops.triton.availability import hash_triton
from edge_tui.engine.port import ModelSpec, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.engine.decode.kernel_list import Kernel


def main() -> None:
    """Compiles side by side, on every processor, and notes that it has been done."""
    gc.disable()  # importing torch takes a fifth less, and this process ends soon
    _fork(_build_driver)
    job_reader, job_writer = os.pipe()
    _fork(lambda: _read_job(job_writer))
    os.close(job_writer)
    hashing = hash_triton()
    import torch

    import edge_tui.engine.decode.kernel_list  # noqa: F401 — it takes as long as half of torch

    torch.set_num_threads(1)  # no thread may be there when this process is copied
    hashing.join()
    with os.fdopen(job_reader) as stream:
        lines = stream.read().splitlines()
    if not lines:
        return  # the command that started this one early has ended, or needs no kernels
    job: dict[str, Any] = json.loads(lines[0])
    try:
        _build(job, json.loads(lines[1]) if len(lines) > 1 else {})
    finally:  # what could not be compiled here will not be next time
        stamp = Path(job["stamp"])
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _read_job(pipe: int) -> None:
    """Writes the job to a pipe as soon as it is there, then what the models' tokenizers are like.

    Each takes one line. Whatever fails is left to the process that reads them.
    """
    if not (text := sys.stdin.read()):
        return
    job: dict[str, Any] = json.loads(text)
    with os.fdopen(pipe, "w") as stream:
        print(json.dumps(job), file=stream, flush=True)
        from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
        from edge_tui.engine.decode.listed_tokenizer import facts_of

        names = {spec["name"] for spec in job["specs"].values()}
        print(json.dumps({name: facts_of(open_checkpoint(name)) for name in names}), file=stream)


def _build(job: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> None:
    """Lists the kernels and compiles them."""
    from edge_tui.engine.decode.kernel_list import list_kernels, stand_for
    from edge_tui.engine.decode.listed_tokenizer import TokenizerFacts

    stand_for(tuple(job["capability"]))
    specs = {role: ModelSpec(**spec) for role, spec in job["specs"].items()}
    fields = ("prompt", "strategy", "values", "mode", "samples", "chat")
    request = Request(**{name: job[name] for name in fields}, ids=tuple(job["ids"]))
    workers = Workers(len(os.sched_getaffinity(0)))
    try:
        facts = {
            name: TokenizerFacts(size, bos, tuple(ends)) for name, (size, bos, ends) in tokenizers.items()
        }
        list_kernels(request, specs, workers.add, workers.end, facts)
    finally:
        workers.finish()


class Workers:
    """Compiles kernels side by side, those found first before others.

    Args:
        most: Processes at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[tuple[int, Kernel]] = deque()
        self._running: set[int] = set()
        self._count = 0
        self._ended: set[str] = set()

    def add(self, kernel: Kernel) -> None:
        """Takes a kernel, and begins with it if a processor is free."""
        self._waiting.append((self._count, kernel))
        self._count += 1
        self._begin()

    def finish(self) -> None:
        """Compiles what is left; no kernel comes after."""
        for phase in PHASES:
            self.end(phase)
        while self._running:
            self._reap(0)
            self._begin()

    def end(self, phase: str) -> None:
        """Says how many kernels a phase waits for, with those before: all that were added."""
        if phase not in self._ended:
            self._ended.add(phase)
            _say(phase, self._count)

    def _begin(self) -> None:
        self._reap(os.WNOHANG)
        while self._waiting and len(self._running) < self._most:
            number, kernel = self._waiting.popleft()
            self._running.add(_fork(lambda: _compile(number, kernel)))  # noqa: B023 — called before it changes

    def _reap(self, options: int) -> None:
        """Forgets processes that have ended. `options`: 0 waits for one."""
        with suppress(ChildProcessError):
            while ended := os.waitpid(-1, options)[0]:
                self._running.discard(ended)
                options = os.WNOHANG


def _fork(work: Callable[[], None]) -> int:
    """Does something in a copy of this process; returns that one's number."""
    if number := os.fork():
        return number
    try:
        with suppress(Exception):
            work()
    finally:
        os._exit(0)


def _compile(number: int, kernel: Kernel) -> None:
    """Compiles a kernel. What fails is compiled by the run itself, which says why."""
    try:
        kernel.compile()
    finally:
        _say("done", number)


def _say(what: str, number: int) -> None:
    """Writes a line, at once and in one piece: copies of this process write to the same pipe."""
    os.write(sys.stdout.fileno(), f"{what} {number}\n".encode())


def _build_driver() -> None:
    """Builds Triton's own extension module, which the first launch loads."""
    from triton.backends.nvidia.driver import CudaUtils

    CudaUtils()


if __name__ == "__main__":
    main()
