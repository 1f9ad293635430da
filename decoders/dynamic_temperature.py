"""Dynamic temperature (kalomaze, 2023; no paper) is low where the model is sure and high where it is not.

Divides logits by `T = Tmin + (Tmax − Tmin) · (H / Hmax)^e`, with `H` the entropy and `Hmax` the logarithm of
the number of candidates; `temperature` divides them as well. Defaults 0.5, 1.5, e = 1; `Tmin = Tmax = 1` is
neutral. Reference: llama.cpp's `temp_ext`, which takes the middle of the range and half its width, and counts
tokens of logit −∞ as candidates; so does textgen, which has the parameters by these names.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows
from edge_tui.decoders.temperature import scale


class DynamicTemperature(Filter):
    """Divides logits by a temperature that grows with the entropy; removes none."""

    name = "dynamic_temperature"
    title = "dynamic T"
    summary = "Draws with a low temperature where the model is sure, a high one where it is not."
    rank = 30
    reshapes = True
    params = (
        Param("dynatemp_low", 0.5, 0.0, 5.0, "Temperature of a sure model.", neutral=1.0),
        Param("dynatemp_high", 1.5, 0.0, 5.0, "Temperature of a model that knows nothing.", neutral=1.0),
        Param("dynatemp_exponent", 1.0, 0.0, 10.0, "Higher needs more doubt to warm up.", 0.1, neutral=1.0),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Divides z by the temperature of its entropy; 0 keeps the argmax alone."""
        return scale(z, self.tau(z, p))

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Gives that temperature, which is the same for every token."""
        return Criterion("T", self.tau(z, p).expand_as(z))

    def tau(self, z: Tensor, p: Params) -> Tensor:
        """Computes the temperature, float32 `[R, 1]`."""
        low, high = p["dynatemp_low"], p["dynatemp_high"]
        return low + (high - low) * rows.evenness(z) ** p["dynatemp_exponent"]
