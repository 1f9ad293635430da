"""Adaptive-p (MrJackSpade, 2025; no paper) favours tokens whose probability is near a target.

Replaces each logit by `5 − 10 · d² / (1 + d)`, `d = |p − t| / 0.3`, and draws. The target of a step, `t = 2 ·
target − average`, kept within 0 to 1, makes up for the tokens before: the average of their probabilities
decays by a factor and begins at the target. Defaults: target −1, decay 0.9; every negative target is neutral.
All unlikely tokens are about as near to a target, so put a cut in front: `min_p+adaptive_p`. Reference:
llama.cpp's `adaptive_p` (pull request 17927), which averages what the stages before it left of the
probabilities. Here they are the model's own, which are on record, so a run that goes on is the same run.
"""

from __future__ import annotations

from math import inf

from edge_tui.decoders.base import Column, Env, Filter, Param, Params, Rng, State, Tensor, Token, rows

WIDTH, PEAK, SHARPNESS = 0.3, 5.0, 10.0


class AdaptiveP(Filter):
    """Reshapes logits by the distance of probabilities from a target that learns from tokens taken."""

    name = "adaptive_p"
    title = "adaptive-p"
    summary = "Draws tokens near a probability; wants a cut such as min-p in front."
    rank = 41
    reshapes = True
    last = True
    columns = (Column("excess", "Mean probability of the tokens so far, less the target."),)
    params = (
        Param("adaptive_target", -1.0, -1.0, 1.0, "Probability to aim at; below 0 is off.", neutral=-1.0),
        Param.share("adaptive_decay", 0.9, "Higher averages over more tokens."),
    )

    def init(self, env: Env) -> State:
        import torch

        return {"excess": torch.zeros(env.rows, 1, device=env.device)}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Maps probabilities to logits that peak at the target."""
        target = (p["adaptive_target"] - s["excess"]).clamp(0.0, 1.0)
        distance = (rows.softmax(z) - target).abs() / WIDTH
        near = PEAK - SHARPNESS * distance.square() / (1 + distance)
        return near.where((p["adaptive_target"] >= 0) & (z > -inf), z)

    def observe(self, s: State, p: Params, token: Token) -> None:
        """Averages how far the probabilities of tokens lie above the target."""
        decay, above = p["adaptive_decay"], token.raw.exp()[:, None] - p["adaptive_target"]
        s["excess"].copy_(decay * s["excess"] + (1 - decay) * above)
