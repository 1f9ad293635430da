"""Context-aware decoding (Shi et al., arXiv 2305.14739) prefers what a context makes likelier.

`(1 + α) · z − α · z_o`, with z after the prompt and z_o after the prompt without its context: guidance
(`decoders/cfg.py`) with γ = 1 + α. Default α = 0.5; 0 is neutral. The prompt is context and question, and the
text `question` repeats the question alone, for the other stream; without it that one reads the prompt's last
token alone. Reference: the formula, as in the authors' code, which decodes greedily or by top-p. Penalties
act on the prompt's logits first, the temperature on the result. A cut by plausibility is `cad:min_p`.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import Param, Params, Prompt, Stream, Tensor, Text, TextParam
from edge_tui.decoders.cfg import Cfg
from edge_tui.decoders.temperature import TEMPERATURE


class Cad(Cfg):
    """Contrasts the logits with and without a context, and draws."""

    name = "cad"
    title = "CAD"
    summary = "Trusts the context in the prompt more than what the model remembers."
    rank = 61
    params = (
        Param("cad_alpha", 0.5, 0.0, 10.0, "α: higher trusts the context more.", neutral=0.0),
        TextParam("question", "", "The prompt without its context."),
        TEMPERATURE,
    )
    streams = (Stream("model", "model"), Stream("question", "model", "question"))

    def prompts(self, main: Prompt, texts: Mapping[str, Text]) -> Mapping[str, Prompt]:
        """Makes the prompt without its context."""
        question = str(texts["question"])
        return {"question": main.with_text(question) if question else main.last(1)}

    def weight(self, p: Params) -> Tensor:
        """Gives α, float32 `[R, 1]`."""
        return p["cad_alpha"]
