"""Compiles the kernels of a run in other processes, while this one imports torch and loads the models.

Triton compiles a kernel when it is first launched, one after another, and keeps the interpreter from every
other thread meanwhile. `KernelBuild` has them compiled beforehand (`kernel_workers`), side by side, into the
cache folder in which Triton then finds them. Whatever goes wrong there costs time alone: a kernel that is
missing is compiled when it is launched. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui import __version__, decoders
from edge_tui.engine.decode.kernel_process import (
    STAMP,
    WORKERS,
    cache_folder,
    end,
    end_early,
    may_compile,
    take,
)
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.engine.ops.triton import compiled_ahead
from edge_tui.machine.devices import compute_capability, resolve_device
from edge_tui.machine.nvml import Gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.engine.port import ModelSpec, Request

PATIENCE = 20.0
"""Seconds without a finished kernel after which they are no longer waited for, now or at another start."""
_POLL = 0.01
_BEGINNING = 64
"""Characters or tokens of a prompt that tell whether it is a short one."""


class KernelBuild:
    """Compiles the kernels of one run.

    Args:
        job: What `kernel_workers` reads.
        module: The program.
    """

    def __init__(self, job: Mapping[str, Any], module: str = WORKERS) -> None:
        self._stamp = Path(job["stamp"])
        self._process = take(module)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._text = b""
        self._numbers: dict[bytes, int] = {}
        """Kernels that each of `PHASES` waits for, once known."""
        self._done: set[int] = set()
        os.set_blocking(self._output.fileno(), False)
        with suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(json.dumps(job).encode())

    def wait(
        self, report: Callable[[int, int], None], stopped: Callable[[], bool], phase: str = "all"
    ) -> bool:
        """Waits until the kernels are there, the processes have failed, or nobody waits any longer.

        Args:
            report: Called with (kernels compiled, kernels in all) after each.
            stopped: True ends the waiting.
            phase: Wait for the kernels of this one of `PHASES` and of those before.

        Returns:
            True if kernels of later phases are still being compiled.
        """
        reported, since = 0, time.monotonic()
        while not stopped():
            piece = self._output.read()
            if piece:
                since = time.monotonic()
                self._take(piece)
            if self._done and len(self._done) > reported and (total := self._numbers.get(b"all")):
                reported = len(self._done)
                report(reported, total)
            given_up = time.monotonic() - since > PATIENCE
            if given_up or self._has(b"all"):
                with suppress(OSError):
                    self._stamp.touch()  # the processes may take seconds to end, or hang
                break
            if self._has(phase.encode()):
                return True
            if piece == b"":  # they have ended
                break
            if piece is None:
                time.sleep(_POLL)
        return False

    def _take(self, piece: bytes) -> None:
        """Reads lines of the processes."""
        *lines, self._text = (self._text + piece).split(b"\n")
        for what, number in (line.split() for line in lines):
            if what == b"done":
                self._done.add(int(number))
            else:
                self._numbers[what] = int(number)

    def _has(self, which: bytes) -> bool:
        """Tells whether the kernels up to a known number are compiled."""
        number = self._numbers.get(which)
        return number is not None and self._done.issuperset(range(number))

    def close(self) -> None:
        """Ends the processes."""
        end(self._process)


class KernelBuilds:
    """Holds the build that goes on: a run waits for what a load before it has begun.

    Args:
        build: One that goes on already.
    """

    def __init__(self, build: KernelBuild | None = None) -> None:
        self._build = build

    def begin(self, request: Request, specs: Mapping[str, ModelSpec]) -> None:
        """Does `begin`, unless a build goes on; a process that has torch would wait for another's import."""
        if self._build is None and "torch" not in sys.modules:
            self._build = begin(request, specs)
        end_early()

    @property
    def is_under_way(self) -> bool:
        """True while a build goes on."""
        return self._build is not None

    def wait(
        self, report: Callable[[int, int], None], stopped: Callable[[], bool], phase: str = "all"
    ) -> None:
        """Does `KernelBuild.wait` for the build that goes on; ends it unless it is waited for again."""
        if self._build is not None and not self._build.wait(report, stopped, phase):
            self.close()

    def while_loading(self, stopped: Callable[[], bool]) -> AbstractContextManager[None]:
        """Lets a model's loading, inside, wait for the kernels that it launches."""
        return compiled_ahead.waiting_by(partial(self.wait, lambda done, total: None, stopped, "load"))

    def close(self) -> None:
        """Ends the build that goes on."""
        build, self._build = self._build, None
        if build is not None:
            build.close()


def begin(request: Request, specs: Mapping[str, ModelSpec]) -> KernelBuild | None:
    """Starts to compile the kernels of a run.

    Args:
        request: The run.
        specs: Its models by role.

    Returns:
        None where nothing is to be compiled: without a GPU or Triton, or where it has been done before.
    """
    if not may_compile():
        return None
    try:
        triton = version("triton")
        with closing(Gpu()):  # without one, to resolve a device would import torch
            device, *others = {resolve_device(spec.device) for spec in specs.values()}
            capability = compute_capability(device) if device.startswith("cuda") else None
    except (LookupError, PackageNotFoundError, OSError):
        return None
    if capability is None or others:
        return None
    job: dict[str, Any] = {
        "capability": capability,
        "strategy": request.strategy,
        "values": dict(request.values),
        "mode": request.mode,
        "samples": request.samples,
        "specs": {role: asdict(spec) for role, spec in sorted(specs.items())},
    }
    what = job | {"values": _shape(request)}
    key = hashlib.sha256(json.dumps([__version__, triton, what]).encode()).hexdigest()
    stamp = cache_folder() / f"{STAMP}{key[:32]}"
    if stamp.exists():
        return None
    prompt = request.prompt[:_BEGINNING] if isinstance(request.prompt, str) else ""
    prompt_of = {"prompt": prompt, "ids": request.ids[:_BEGINNING], "chat": request.chat}
    return KernelBuild(job | prompt_of | {"stamp": str(stamp)})


def _shape(request: Request) -> list[object]:
    """Lists what kernels depend on of the values: rows, proposals, and links at neutral values."""
    decoder = decoders.find(request.strategy)
    values = resolve_params(request, decoder, {}).values
    neutral = sorted(name for name, value in values.items() if value in (0.0, 1.0))
    return [decoder.rows(values), decoder.num_draft_tokens(values), neutral]
