"""Estimates the memory that a model would take on a device in each precision, from its headers alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.engine.models.loader import available_precisions
from edge_tui.engine.models.memory_estimate import MemoryEstimate, estimate, estimate_pair, reserved
from edge_tui.engine.port import Precision
from edge_tui.machine.devices import best, devices
from edge_tui.machine.nvml import GpuProcess, gpu_processes

if TYPE_CHECKING:
    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.port import ModelSpec
    from edge_tui.machine.devices import Device

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(slots=True)
class ModelEstimate:
    """Holds the memory that a model would take, in every precision.

    Attributes:
        name: The model's.
        device: Where it would go.
        rows: Sequences decoded side by side that `estimates` counts.
        estimates: By precision.
        contexts: Positions that would be reserved, by precision.
        together: With the other model, by precision: one estimate for each device.
        reasons: Why a precision cannot be had; one that does not fit has both.
        others: Processes that hold memory of the device now.
    """

    name: str
    device: Device
    rows: int = 1
    estimates: dict[str, MemoryEstimate] = field(default_factory=dict)
    contexts: dict[str, int] = field(default_factory=dict)
    together: dict[str, tuple[MemoryEstimate, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    others: list[GpuProcess] = field(default_factory=list)


def estimate_model(
    checkpoint: Checkpoint,
    asked: str,
    context: int,
    rows: int = 1,
    new: int = 0,
    other: ModelSpec | None = None,
) -> ModelEstimate:
    """Estimates the memory in every precision.

    Args:
        checkpoint: The model; it need not be here yet.
        asked: "auto", or a device; one that is not there counts as "auto".
        context: Positions to reserve; 0 means the model's own limit, as far as memory allows.
        rows: Sequences decoded side by side.
        new: New tokens of each; 0 means the whole context.
        other: The model that it would play with.
    """
    there = {device.name: device for device in devices()}
    device = there.get(asked) or best(there.values())
    seen = ModelEstimate(
        checkpoint.name, device, rows, others=gpu_processes(device.name) if "cuda" in device.name else []
    )
    seen.reasons = {precision: why for precision, why in available_precisions(device.name).items() if why}
    for precision in PRECISIONS:
        if checkpoint.quantization and precision not in ("auto", checkpoint.quantization):
            seen.reasons[precision] = f"Its weights are stored in {checkpoint.quantization}."
        if precision not in seen.reasons:
            positions = seen.contexts[precision] = reserved(checkpoint, context, precision, device.name)
            found = estimate(checkpoint, precision, positions, 1, device.name)
            if not found.fits:
                seen.reasons[precision] = found.sentence
            if rows > 1:
                found = estimate(checkpoint, precision, positions, rows, device.name, new)
            seen.estimates[precision] = found
    if other is not None and (beside := _beside(other, seen, rows, new)) is not None:
        seen.together = {name: estimate_pair([found, beside]) for name, found in seen.estimates.items()}
    return seen


def _beside(spec: ModelSpec, seen: ModelEstimate, rows: int, new: int) -> MemoryEstimate | None:
    """Estimates the other model, None if it is not here; "auto" puts it on the same device."""
    try:
        checkpoint = open_checkpoint(spec.name)
    except CheckpointError:
        return None
    device = seen.device.name if spec.device == "auto" else spec.device
    positions = reserved(checkpoint, spec.context, spec.precision, device)
    return estimate(checkpoint, spec.precision, positions, rows, device, new)
