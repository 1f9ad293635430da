"""Bars texts from the answer: the last token of a text may not follow its other tokens.

A text is barred as it stands, and behind a space unless it begins with white space: "cat" also bars " cat".
It is barred in the tokens that the tokenizer makes of it. The same letters in other tokens, as in upper case
or across the end of a word, are not. As in transformers' `NoBadWordsLogitsProcessor`, a text that is nothing
but a token that ends the answer is let through.
"""

from __future__ import annotations

import math

from edge_tui.decoders.base import Env, SequenceBias, Sequences, State, TextParam, encoded


class BadWords(SequenceBias):
    """Removes the token that would complete a barred text."""

    name = "bad_words"
    title = "bad words"
    reshapes = False
    summary = "Draws, but never completes one of some texts."
    params = (TextParam("bad_words", help="Texts that the answer must not hold.", many=True),)

    def sequences(self, env: Env) -> Sequences:
        """Encodes every text, and the text behind a space."""
        texts = list(env.texts["bad_words"])
        texts += [f" {text}" for text in texts if not text[0].isspace()]
        return {encoded("bad_words", text, env): -math.inf for text in texts}

    def constants(self, env: Env) -> State:
        """Lets a token alone pass that ends the answer."""
        s = super().constants(env)
        ends = (s["last"][:, None] == env.eos).any(-1)
        alone = (s["before"] < 0).all(-1)
        return s | {"bias": s["bias"].masked_fill(ends & alone, 0.0)}
