"""`python -m tests.engine.decode.listed_kernels FOLDER STRATEGY…` lists the kernels of runs on a Hopper GPU.

For each strategy it prints the names: those that loading waits for, a bar, those of the first token, a bar,
and the others. Then it prints which module it imported that nobody here needs, and whether a kernel that was
compiled from tensors without memory is found for tensors with memory.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from triton import knobs

from edge_tui.engine.decode.kernel_list import Kernel, list_kernels, stand_for
from edge_tui.engine.ops.triton.project import embed
from edge_tui.engine.port import ModelSpec, Request

ROLES = "model", "expert", "amateur", "draft"


def main(folder: str, *strategies: str) -> None:
    stand_for((9, 0))
    first = None
    for name in strategies:
        strategy, precision, prompt = (*name.split(":"), "", "")[:3]
        spec: Any = ModelSpec(folder, precision or "auto", "cuda:0")
        found: list[Kernel | None] = []
        specs = dict.fromkeys(ROLES, spec)
        list_kernels(Request(prompt, strategy), specs, found.append, lambda phase: found.append(None))  # noqa: B023
        first = first or found[0]
        print(name, *("|" if kernel is None else kernel.name for kernel in found))
    print("imported", *(name for name in ("torch._dynamo.eval_frame",) if name in sys.modules))
    assert first is not None
    first.compile()
    hits: list[bool] = []
    knobs.compilation.listener = lambda *, cache_hit, **_: hits.append(cache_hit)
    launched = first.function.run
    type(first.function).run = lambda *given, warmup, **options: launched(*given[1:], warmup=True, **options)
    table, ids = torch.arange(8.0).view(2, 4), torch.ones(1, dtype=torch.int64)
    first.function.device_caches.clear()
    embed(ids, table, torch.zeros(1, 4))
    embed(ids, torch.arange(9.0)[1:].view(2, 4), torch.zeros(1, 4))  # another alignment: another kernel
    print("found", *hits)


if __name__ == "__main__":
    main(*sys.argv[1:])
