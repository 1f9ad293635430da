"""`python -m edge_tui.engine.decode.kernel_workers` compiles the kernels of the run on its standard input.

It writes the number of kernels, then a line for each that is done. `kernel_build` starts it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.port import ModelSpec, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.decode.kernel_list import Kernel

_kernels: list[Kernel] = []
"""Those of the run, which workers have by being forked."""


def main() -> None:
    """Compiles side by side, on every processor, and notes that it has been done."""
    gc.disable()  # importing torch takes a fifth less, and this process ends soon
    job: dict[str, Any] = json.load(sys.stdin)
    try:
        _build(job)
    finally:  # what could not be compiled here will not be next time
        stamp = Path(job["stamp"])
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _build(job: Mapping[str, Any]) -> None:
    """Lists the kernels and compiles them."""
    import torch

    from edge_tui.engine.decode.kernel_list import list_kernels, stand_for

    torch.set_num_threads(1)  # no thread may be there when workers are forked
    fork = get_context("fork")
    fork.Process(target=_build_driver).start()
    stand_for(tuple(job["capability"]))
    specs = {role: ModelSpec(**spec) for role, spec in job["specs"].items()}
    fields = ("prompt", "strategy", "values", "mode", "samples", "chat")
    request = Request(**{name: job[name] for name in fields}, ids=tuple(job["ids"]))
    _kernels.extend(list_kernels(request, specs))
    print(len(_kernels), flush=True)
    workers = min(len(_kernels), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=fork) as pool:
        pending = [pool.submit(_compile, number) for number in range(len(_kernels))]
        for _ in as_completed(pending):
            print("done", flush=True)


def _compile(number: int) -> None:
    _kernels[number].compile()


def _build_driver() -> None:
    """Builds Triton's own extension module, which the first launch loads."""
    with suppress(Exception):
        from triton.backends.nvidia.driver import CudaUtils

        CudaUtils()


if __name__ == "__main__":
    main()
