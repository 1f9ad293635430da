"""What a model would take on a device, in each precision, before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from edge_tui.engine.devices import devices
from edge_tui.engine.forecast import Forecast, forecast
from edge_tui.engine.loader import available_precisions
from edge_tui.engine.port import Precision
from edge_tui.nvml import Holder, holders

if TYPE_CHECKING:
    from edge_tui.engine.checkpoint import Checkpoint
    from edge_tui.engine.devices import Device

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(slots=True)
class Outlook:
    """What is to be expected of a model.

    Attributes:
        name: The model's.
        device: Where it would go.
        forecasts: By precision.
        reasons: Why a precision cannot be had; one that does not fit has both.
        others: Processes that hold memory of the device now.
    """

    name: str
    device: Device
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    others: list[Holder] = field(default_factory=list)


def outlook(checkpoint: Checkpoint, asked: str, context: int) -> Outlook:
    """Forecasts every precision.

    Args:
        checkpoint: The model; it need not be here yet.
        asked: "auto", or a device; one that is not there counts as "auto".
        context: Positions to reserve; 0 means the model's own limit.
    """
    there = {device.name: device for device in devices()}
    best = max(there.values(), key=lambda d: (d.name != "cpu", d.name != "mps", d.free or 0))
    device = there.get(asked, best)
    seen = Outlook(checkpoint.name, device, others=holders(device.name) if "cuda" in device.name else [])
    seen.reasons = {precision: why for precision, why in available_precisions(device.name).items() if why}
    for precision in PRECISIONS:
        if checkpoint.quantization and precision not in ("auto", checkpoint.quantization):
            seen.reasons[precision] = f"Its weights are stored in {checkpoint.quantization}."
        if precision not in seen.reasons:
            found = seen.forecasts[precision] = forecast(checkpoint, precision, context, 1, device.name)
            if not found.fits:
                seen.reasons[precision] = found.sentence
    return seen
