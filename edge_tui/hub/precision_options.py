"""Lists the precisions that a device can load a model in, each with its memory or the reason against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.engine.models.loader import available_precisions
from edge_tui.engine.models.memory_estimate import MemoryEstimate, context_to_reserve, estimate, estimate_pair
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
        device: The device it would go to.
        rows: Sequences that `estimates` counts, those of every prompt that a strategy reads.
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
    device_name: str,
    context: int,
    rows: int = 1,
    new: int = 0,
    other: ModelSpec | None = None,
    past: bool = False,
    streams: int = 1,
) -> ModelEstimate:
    """Estimates the memory in every precision.

    Args:
        checkpoint: The model; it need not be here yet.
        device_name: "auto", or a device; one that is not here counts as "auto".
        context: Positions to reserve; 0 means the model's own limit, as far as memory allows.
        rows: Sequences decoded side by side.
        new: New tokens of each; 0 means the whole context.
        other: The model that it would play with.
        past: True where the strategy keeps hidden states of every position.
        streams: Prompts of the model that the strategy reads.
    """
    available = {device.name: device for device in devices()}
    device = available.get(device_name) or best(available.values())
    result = ModelEstimate(
        checkpoint.name,
        device,
        rows * streams,
        others=gpu_processes(device.name) if "cuda" in device.name else [],
    )
    reasons = available_precisions(device.name, checkpoint)
    result.reasons = {precision: why for precision, why in reasons.items() if why}
    for precision in PRECISIONS:
        if checkpoint.quantization and precision not in ("auto", checkpoint.quantization):
            result.reasons[precision] = f"Its weights are stored in {checkpoint.quantization}."
        if precision not in result.reasons:
            positions = result.contexts[precision] = context_to_reserve(
                checkpoint, context, precision, device.name
            )
            one = estimate(checkpoint, precision, positions, 1, device.name)
            if not one.fits:
                result.reasons[precision] = one.sentence
            if rows > 1 or past or streams > 1:
                one = estimate(checkpoint, precision, positions, rows, device.name, new, past, streams)
            result.estimates[precision] = one
    if other is not None and (second := _estimate_other(other, result, rows, new)) is not None:
        result.together = {name: estimate_pair([one, second]) for name, one in result.estimates.items()}
    return result


def _estimate_other(spec: ModelSpec, result: ModelEstimate, rows: int, new: int) -> MemoryEstimate | None:
    """Estimates the other model, None if it is not here; "auto" puts it on the same device."""
    try:
        checkpoint = open_checkpoint(spec.name)
    except CheckpointError:
        return None
    device = result.device.name if spec.device == "auto" else spec.device
    positions = context_to_reserve(checkpoint, spec.context, spec.precision, device)
    return estimate(checkpoint, spec.precision, positions, rows, device, new)
