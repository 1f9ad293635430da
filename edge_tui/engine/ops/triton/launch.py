"""Says how kernels of this process are launched: interpreted or compiled, one after another or overlapping.

On Hopper and later a kernel is launched while the one before it still runs (programmatic dependent launch).
It gets ready, and waits only before it touches what earlier kernels write or read. Every kernel of such a
chain has to wait, also when its own input is older: that makes "the one before me has ended" mean "all before
me have". The gain, for each strategy and each product: `python -m tests.engine.ops.speed_choose_alone` and
`python -m tests.engine.ops.speed_project`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from edge_tui.engine.ops.triton import rehearsal

dependent_launch = True
"""True if chains of kernels overlap on GPUs that can; read at each launch."""


@triton.jit
def after_others(DEPENDENT: tl.constexpr):
    """Lets the next kernel get ready, and waits until what the ones before have written can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


INTERPRETED = isinstance(after_others, InterpretedFunction)
COMPILED = tl.constexpr(not INTERPRETED)
"""The same for kernels, which take other ways where the interpreter lacks one."""


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """Returns the compute capability: 7 for Turing, 8 for Ampere, 9 for Hopper; 0 under the interpreter."""
    if INTERPRETED:
        return (0, 0)
    return rehearsal.capability or torch.cuda.get_device_capability(device)


def chain(device: torch.device) -> dict[str, Any]:
    """Returns the options with which a kernel joins a chain: those that overlap, where they may."""
    dependent = dependent_launch and capability(device) >= (9, 0)
    return {"DEPENDENT": dependent} if INTERPRETED else {"DEPENDENT": dependent, "launch_pdl": dependent}
