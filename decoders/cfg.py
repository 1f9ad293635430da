"""Classifier-free guidance (Sanchez et al., arXiv 2306.17806) leads away from the logits of another prompt.

`log p_u + γ · (log p_c − log p_u)`, with p_c after the prompt and p_u after the negative one. Default γ =
1.5; 1 is neutral. With a chat template `negative` takes the place of the system prompt, otherwise that of the
whole prompt; without a text the other stream reads the prompt's last token alone. Reference: transformers'
`UnbatchedClassifierFreeGuidanceLogitsProcessor`. It computes log-probabilities, here the logits themselves
are taken: the same but for a summand, and γ = 1 leaves every bit as it was. Penalties act on the prompt's
logits first, the temperature on the result. A cut by plausibility is `cfg:min_p`.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Criterion,
    Decoder,
    Output,
    Param,
    Params,
    Prompt,
    Rng,
    State,
    Stream,
    Tensor,
    Text,
    TextParam,
    difference,
    last_logits,
    of_guidance,
)
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import TEMPERATURE, Temperature


class Cfg(Decoder):
    """Contrasts the logits after two prompts of one model, and draws."""

    name = "cfg"
    title = "CFG"
    summary = "Follows the prompt more closely, or keeps away from a negative one."
    rank = 60
    params = (
        Param("guidance_scale", 1.5, 0.0, 20.0, "γ: higher follows the prompt more closely.", neutral=1.0),
        TextParam("negative", "", "What the answer is to keep away from."),
        TEMPERATURE,
    )
    streams = (Stream("model", "model"), Stream("negative", "model", "negative"))

    def __init__(self) -> None:
        super().__init__(penalties(), (Temperature(),))

    def prompts(self, main: Prompt, texts: Mapping[str, Text]) -> Mapping[str, Prompt]:
        """Makes the negative prompt."""
        negative = str(texts["negative"])
        return {"negative": main.with_system(negative) if negative else main.last(1)}

    def logits(self, outs: Mapping[str, Output], s: State, p: Params) -> Tensor:
        """Adds the difference of the two, by its weight."""
        z, other = (last_logits(outs[stream.name], s) for stream in self.streams)
        return z + self.weight(p) * difference(z, other)

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion:
        """Gives what that adds to log-probabilities."""
        z, other = (last_logits(outs[stream.name], s) for stream in self.streams)
        return of_guidance(self.before.apply(z, p, s, rng), other, self.weight(p))

    def weight(self, p: Params) -> Tensor:
        """Gives γ − 1, float32 `[R, 1]`."""
        return p["guidance_scale"] - 1
