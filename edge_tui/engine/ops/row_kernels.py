"""Provides strategies with the kernels of this machine's GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core import kernels

if TYPE_CHECKING:
    from edge_tui.decoders.core.kernels import Kernels


def provide(device: str) -> None:
    """Lets strategies on a device use its kernels, if it is an NVIDIA GPU that runs them."""
    kind = device.partition(":")[0]
    from edge_tui.engine.ops.triton.availability import available, is_gpu

    if is_gpu(kind) and available() is None:
        kernels.provide(kind, made_by_triton())


def made_by_triton() -> Kernels:
    """Collects the kernels that are written in Triton."""
    from edge_tui.engine.ops.triton import best, noise, repeats, rows

    return kernels.Kernels(
        softmax=rows.softmax,
        statistic=rows.statistic,
        reach=rows.reach,
        best=best.best,
        argmax_and_lead=best.argmax_and_lead,
        noise=noise.noise,
        draw=best.draw,
        repeat_lengths=repeats.repeat_lengths,
    )
