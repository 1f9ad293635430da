"""Adds a number to the logits of chosen tokens, as `logit_bias` of OpenAI's API does.

`" yes=5"` favours the token of " yes", `"#50256=-100"` bars the token with that id, and `"<|im_end|>=-2"`
names a control token. A text of several tokens acts on its last one where the others have just been written,
as in transformers' `SequenceBiasLogitsProcessor`. All in front of the last "=" is the text, spaces included.
"""

from __future__ import annotations

import re

from edge_tui.decoders.base import Env, ParamError, SequenceBias, Sequences, TextParam, encoded

LIMIT = 100.0
"""Largest number either way, as in OpenAI's API."""


def split(text: str) -> tuple[str, float]:
    """Splits "text=number".

    Raises:
        ParamError: it is something else.
    """
    words, equals, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = LIMIT + 1
    if not (words and equals and abs(bias) <= LIMIT):
        allowed = f"a text, = and a number from -{LIMIT:.0f} to {LIMIT:.0f}"
        raise ParamError(f"logit_bias has {text[:40]!r}, but must have {allowed}.")
    return words, bias


class LogitBias(SequenceBias):
    """Adds a number to the logits of chosen tokens."""

    name = "logit_bias"
    title = "logit bias"
    summary = "Draws with some tokens favoured or avoided."
    params = (TextParam("logit_bias", help="Above 0 favours a token: ' yes=5'.", many=True, check=split),)

    def sequences(self, env: Env) -> Sequences:
        """Reads ids, names of tokens and texts; the last of equal ones holds."""
        found: dict[tuple[int, ...], float] = {}
        for text in env.texts["logit_bias"]:
            words, bias = split(text)
            found[_ids(words, env)] = bias
        return found


def _ids(words: str, env: Env) -> tuple[int, ...]:
    if re.fullmatch(r"#\d{1,9}", words):
        token = int(words[1:])
        if token >= env.vocab:
            reason = f"logit_bias names the token {token}, but ids go from 0 to {env.vocab - 1}."
            raise ParamError(reason, "logit_bias")
        return (token,)
    token_of = env.tokenizer.named()
    return (token_of[words],) if words in token_of else encoded("logit_bias", words, env)
