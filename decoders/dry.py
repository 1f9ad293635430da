"""DRY (p-e-w, 2024; no paper) penalises tokens that would extend a repetition, more the longer it is.

`z −= m · b^(n − L)` for a token that has followed the last n ≥ L tokens before; n is the longest such. Tokens
with a breaker in their text end a repetition and are never penalised. Looks at the last 1,024 tokens of
prompt and output. Defaults m = 0.8, b = 1.75, L = 2, breakers newline, colon, quote, asterisk; m = 0 is
neutral. Reference: llama.cpp, from koboldcpp. They know breakers that are spread over several tokens too, and
repetitions of any length; here n ends at 50, as in textgen.
"""

from __future__ import annotations

from edge_tui.decoders.base import (
    Env,
    Filter,
    Needs,
    Param,
    Params,
    Rng,
    State,
    Tensor,
    TextParam,
    repeat_lengths,
    tokens_with,
)

WINDOW, LONGEST = 1024, 50


class Dry(Filter):
    """Lowers the logits of tokens that continue a repetition."""

    name = "dry"
    title = "DRY"
    summary = "Draws while tokens that would go on with a repetition are penalised."
    rank = 50
    reshapes = True
    penalty = True
    params = (
        Param("dry_multiplier", 0.8, 0.0, 5.0, "Higher avoids repetitions more; 0 is off.", neutral=0.0),
        Param("dry_base", 1.75, 1.0, 4.0, "Higher punishes long repetitions more."),
        Param("dry_allowed_length", 2, 1, LONGEST, "Longest repetition that costs only m.", 1, True),
        TextParam("dry_breakers", ("\n", ":", '"', "*"), "Texts that end a repetition.", many=True),
    )
    needs = Needs(history=WINDOW)

    def constants(self, env: Env) -> State:
        """Marks the tokens that hold a breaker."""
        import torch

        found = tokens_with(env.tokenizer, tuple(env.texts["dry_breakers"]))
        ids = torch.tensor([token for token in found if token < env.vocab], dtype=torch.int64)
        breaks = torch.zeros(env.vocab, dtype=torch.bool).index_fill_(0, ids, True)
        return {"breaks": breaks.to(env.device, non_blocking=True)}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Subtracts from each token of the window the penalty of its longest repetition."""
        ids = s["ids"][:, -WINDOW:]
        token = ids.clamp(0, z.shape[-1] - 1)
        free = s["breaks"][token] | (ids != token)
        length = repeat_lengths(ids.masked_fill(free, -1), LONGEST)
        over = length - p["dry_allowed_length"]
        penalty = (p["dry_multiplier"] * p["dry_base"] ** over).masked_fill(free | (over < 0), 0.0)
        return z.scatter_reduce(-1, token, z.gather(-1, token) - penalty, "amin")
