"""The tokenizer that strategies see: continuations, the bytes of each token, names of added tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.engine.text.strategy_tokenizer import StrategyTokenizer
from tests.engine.text.test_tokenizer import CORPUS, STRANGE, TOKENIZERS, byte_level, sentencepiece, words

FAMILIES = [name for name in TOKENIZERS if name not in ("words", "metaspace")]
"""Those that can spell any text; the others know few pieces."""


def writable(text: str) -> bool:
    """Tells whether all families can write a text: sentencepiece has its mark of a space for no other use."""
    return text.isprintable() and "▁" not in text


@pytest.mark.parametrize("name", FAMILIES)
@given(text=st.text(max_size=20).filter(writable) | st.sampled_from(CORPUS))
@settings(max_examples=40)
def test_a_continuation_adds_its_own_characters_and_nothing_else(name: str, text: str) -> None:
    own = TOKENIZERS[name]()
    tokenizer = StrategyTokenizer(own)
    before = own.encode("the fox", special=False)
    assert own.decode([*before, *tokenizer.encode(text)]) == own.decode(before) + text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_spell_what_is_written(name: str) -> None:
    own = TOKENIZERS[name]()
    tokenizer = StrategyTokenizer(own)
    spelt = tokenizer.token_bytes()
    assert len(spelt) == tokenizer.size == own.size
    for token in range(own.size):
        if token in own.special:
            assert spelt[token] == b""
    ids = own.encode("the fox", special=False)
    assert b"".join(spelt[i] for i in ids).decode().strip() == "the fox"


def test_what_stands_behind_a_word_is_not_what_begins_a_text() -> None:
    own = sentencepiece()
    tokenizer = StrategyTokenizer(own)
    spelt = tokenizer.token_bytes()
    assert own.decode(own.encode("the", special=False)) == "the"
    assert spelt[own.encode("the", special=False)[0]] == b" th"
    assert b"".join(spelt[i] for i in tokenizer.encode("the")) == b"the"
    other = words()
    assert StrategyTokenizer(other).token_bytes()[other.encode("foxes")[1]] == b"es"


def test_a_control_token_is_text_and_has_a_name() -> None:
    own = byte_level()
    tokenizer = StrategyTokenizer(own)
    end = own.control["<|end|>"]
    assert end not in tokenizer.encode("a <|end|>")
    assert tokenizer.decode(tokenizer.encode("a <|end|>")) == "a <|end|>"
    assert tokenizer.named()["<|end|>"] == end
    assert tokenizer.named().keys() == {"<|end|>", "<tool call>", "日本"}


def test_strange_texts_are_spelt_whole() -> None:
    tokenizer = StrategyTokenizer(byte_level())
    spelt = tokenizer.token_bytes()
    assert b"".join(spelt[i] for i in tokenizer.encode(STRANGE)).decode() == STRANGE
    assert tokenizer.encode("") == ()
    assert b"".join(spelt[i] for i in tokenizer.encode("half \ud83d")).decode() == "half \ufffd"
