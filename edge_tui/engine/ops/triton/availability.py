"""Tells whether Triton's kernels run on this machine, by running one."""

from __future__ import annotations

from functools import cache

from edge_tui.util import logs


@cache
def available() -> str | None:
    """Tells why Triton's kernels do not run here, in one sentence; None if they do.

    The answer comes from running one: Triton needs a C compiler and CUDA's assembler at first use, and only
    a try tells. Under Triton's interpreter (`TRITON_INTERPRET=1`) kernels take tensors of the CPU.
    """
    try:
        import triton  # noqa: F401
    except ImportError:
        return "The fused kernels need Triton, which is not installed: pip install triton."
    import torch

    from edge_tui.engine.ops.triton import launch
    from edge_tui.engine.ops.triton import project as project_triton

    if not launch.INTERPRETED and not torch.cuda.is_available():
        return "The fused kernels need an NVIDIA GPU, and torch finds none."
    device = "cpu" if launch.INTERPRETED else "cuda"
    try:
        table = torch.arange(8.0, device=device).view(2, 4)
        out = torch.zeros(1, 4, device=device)
        project_triton.embed(torch.ones(1, dtype=torch.int64, device=device), table, out)
        works = bool((out == table[1]).all())
    except Exception as error:
        reason = logs.first_line(error)
        return f"Triton could not build a kernel here ({reason}): check that a C compiler is installed."
    return None if works else "Triton's kernels give wrong results here: update Triton and the driver."
