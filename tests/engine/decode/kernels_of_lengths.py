"""`python -m tests.engine.decode.kernels_of_lengths FOLDER STRATEGY…` compares the kernels of runs.

The runs of a strategy differ in the lengths of prompt and answer. It prints how many kernels one has, and
those that some of the runs compile and others do not.
"""

from __future__ import annotations

import sys
from typing import Any

from triton import knobs

from edge_tui.engine.decode.kernel_list import Kernel, list_kernels, stand_for
from edge_tui.engine.port import ModelSpec, Request

ROLES = "model", "expert", "amateur", "draft"
LENGTHS = (16, 1), (15, 64), (17, 1), (2048, 2048), (2049, 17)
"""Tokens of prompts and of answers."""


def main(folder: str, *strategies: str) -> None:
    stand_for((9, 0))
    specs = dict.fromkeys(ROLES, ModelSpec(folder, "bfloat16", "cuda:0"))
    keys: list[tuple[str, Any]] = []

    def note(*, key: Any, fn: Any, **_: Any) -> bool:
        keys.append((fn.name, key))
        return True  # Triton compiles nothing then

    def look(kernel: Kernel) -> None:
        knobs.runtime.jit_cache_hook = note
        kernel.function.run(*kernel.arguments, **kernel.options, warmup=True)

    for strategy in strategies:
        of_lengths = []
        for prompt, answer in LENGTHS:
            keys.clear()
            list_kernels(Request("", strategy, ids=(1,) * prompt, max_length=answer), specs, look)
            of_lengths.append(set(keys))
        differing = set.union(*of_lengths) - set.intersection(*of_lengths)
        print(strategy, len(of_lengths[0]), *sorted({name for name, _ in differing}))


if __name__ == "__main__":
    main(*sys.argv[1:])
