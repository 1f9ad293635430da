"""Control tokens that users type are text, in the layouts of tokenizers that the hub holds."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from edge_tui.engine.checkpoints.checkpoint import CheckpointError
from edge_tui.engine.text.control_tokens import any_of, role_tokens
from edge_tui.engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = ["the quick brown fox jumps over the lazy dog", "user and assistant say: hello <|> /s [x]"]
START, END = "<|im_start|>", "<|im_end|>"
BYTES = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}


def chatml(roles_and_contents: list[tuple[str, str]]) -> str:
    return "".join(f"{START}{role}\n{content}{END}\n" for role, content in roles_and_contents)


@cache
def byte_level() -> Tokenizer:
    """As Qwen's: byte-level BPE, a normalizer, added tokens of which some are ordinary."""
    fast = FastTokenizer(models.BPE())
    fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(CORPUS, trainer)
    fast.add_special_tokens(["<|endoftext|>", START])
    fast.add_tokens([AddedToken(END, special=False, normalized=False), AddedToken("<think>")])
    return Tokenizer(fast, end_ids=[fast.token_to_id(END)])


def _sentencepiece(*, legacy: bool, front: bool, strip: bool) -> Tokenizer:
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz<>|_/:", "▁t", "▁th", "he", "▁▁"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | BYTES
    vocab |= {piece: 259 + n for n, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("▁t", "h"), ("h", "e"), ("▁", "▁")]
    fast = FastTokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if legacy:
        prepend = [normalizers.Prepend("▁")] if front else []
        fast.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    else:
        fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    fast.add_special_tokens(["<unk>", "<s>", "</s>", AddedToken(START, rstrip=True), END])
    return Tokenizer(fast, bos_id=1)


@cache
def unigram() -> Tokenizer:
    """As T5's and XGLM's: the model itself has pieces that are spelt like its control tokens."""
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz<>|_/:", "▁th", "he", "user"]
    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((piece, -9.0) for piece in BYTES)]
    vocab += [(piece, -3.0 - len(piece) / 9) for piece in pieces]
    vocab += [(START, -1.0), (END, -1.0)]
    fast = FastTokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    fast.add_special_tokens(["<unk>", "<s>", "</s>", START, END])
    return Tokenizer(fast, bos_id=1)


@cache
def lowered() -> Tokenizer:
    """A normalizer that makes control tokens' names out of other text: these tokens are normalized."""
    fast = FastTokenizer(models.BPE())
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    fast.decoder = decoders.Fuse()
    alphabet = sorted({char for text in CORPUS for char in text} | set("\n_"))
    trainer = trainers.BpeTrainer(vocab_size=90, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(CORPUS, trainer)
    fast.add_special_tokens([AddedToken(name, normalized=True) for name in (START, END)])
    return Tokenizer(fast)


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "llama": cache(lambda: _sentencepiece(legacy=True, front=True, strip=True)),
    "mistral": cache(lambda: _sentencepiece(legacy=False, front=True, strip=True)),
    "gemma": cache(lambda: _sentencepiece(legacy=True, front=False, strip=False)),
    "unigram": unigram,
    "lowered": lowered,
}
said = st.lists(
    st.sampled_from(
        [START, END, "<|im_", "end|>", "</s>", "<s>", "the user", " ", "\n", "x", "<think>", "é"]
    ),
    max_size=6,
).map("".join)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), said), min_size=1, max_size=3)


def encoded(tokenizer: Tokenizer, conversation: list[tuple[str, str]]) -> list[int]:
    masked = tokenizer.mask([content for _, content in conversation], "")
    return tokenizer.encode_rendered(
        chatml([(role, masked.hide(text)) for role, text in conversation]), masked
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@given(conversation=turns)
@settings(max_examples=30)
def test_only_the_template_writes_control_tokens(name: str, conversation: list[tuple[str, str]]) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = encoded(tokenizer, conversation)
    pair = [tokenizer.control[START], tokenizer.control[END]]
    unknown = {tokenizer.control.get("<unk>")}  # stands for any character that the tokenizer lacks
    assert [i for i in ids if i in tokenizer.special - unknown] == pair * len(conversation)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(conversation=turns)
@settings(max_examples=25)
def test_what_has_no_control_tokens_is_encoded_as_ever(
    name: str, conversation: list[tuple[str, str]]
) -> None:
    tokenizer = TOKENIZERS[name]()
    plain = [
        (role, text.replace(START, "a").replace(END, "b").replace("</s>", "c").replace("<s>", "d"))
        for role, text in conversation
    ]
    assert not tokenizer.control_in([text for _, text in plain])
    assert encoded(tokenizer, plain) == tokenizer.encode(chatml(plain), special=False)


@pytest.mark.parametrize("name", ["byte-level", "gemma"])
@given(text=said)
@settings(max_examples=25)
def test_the_text_is_what_was_typed(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text, special=False, control=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.special.isdisjoint(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_switch_allows_them(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    text = f"the {START}user{END}"
    assert tokenizer.control_in([text]) == {START: 1, END: 1}
    allowed = tokenizer.encode(text, special=False)
    assert [i for i in allowed if i in tokenizer.special] == [
        tokenizer.control[START],
        tokenizer.control[END],
    ]


def test_a_name_that_a_normalizer_makes_is_text_as_well() -> None:
    tokenizer = lowered()
    assert tokenizer.control_in(["a <|IM_END|>", "\ud800"]) == {END: 1}
    assert tokenizer.control[END] in tokenizer.encode("a <|IM_END|>")
    assert tokenizer.special.isdisjoint(tokenizer.encode("a <|IM_END|>", control=False))


def test_split_as_transformers_splits_it() -> None:
    from transformers import PreTrainedTokenizerFast

    for name in ("llama", "mistral", "gemma"):
        tokenizer = TOKENIZERS[name]()
        reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer.fast, split_special_tokens=True)
        for text in (f"the{END}", f"{START} user\n</s>x<s>", f"{END}{END}"):
            expected = reference(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            assert tokenizer.encode(text, special=False, control=False) == expected


@given(names=st.lists(st.text("ab<>", max_size=4), max_size=6), text=st.text("ab<>", max_size=12))
@settings(max_examples=30)
def test_the_longest_name_is_found(names: list[str], text: str) -> None:
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    plain = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    assert any_of(names).findall(text) == plain.findall(text)


def test_a_token_that_wants_to_stand_alone_is_one_where_the_template_writes_it() -> None:
    fast = FastTokenizer.from_str(byte_level().fast.to_str())
    fast.add_special_tokens([AddedToken("<alone>", single_word=True, normalized=False)])
    tokenizer = Tokenizer(fast)
    masked = tokenizer.mask([f"a{END}"], "")
    ids = tokenizer.encode_rendered(f"<alone>x<alone><alone>{masked.hide(f'a{END}')}", masked)
    assert ids.count(tokenizer.control["<alone>"]) == 3
    assert tokenizer.decode(ids) == f"xa{END}"


def test_private_characters_in_a_prompt_stay_what_they_are() -> None:
    tokenizer = byte_level()
    first = chr(0xF0000)
    ids = encoded(tokenizer, [("user", f"{first}{END}{first}")])
    assert tokenizer.decode(ids) == f"user\n{first}{END}{first}\n"
    every = "".join(map(chr, (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))))
    with pytest.raises(CheckpointError, match="private character"):
        tokenizer.mask([every, END], "")


def test_tokens_with_a_role_are_control_tokens() -> None:
    roles = role_tokens(
        {
            "eos_token": {"content": "<end>"},
            "bos_token": "<begin>",
            "additional_special_tokens": ["<a>", {"content": "<b>"}],
            "extra_special_tokens": {"image_token": "<c>"},
            "add_bos_token": True,
            "model_max_length": 9,
            "chat_template": "<d>",
        }
    )
    assert roles == {"<end>", "<begin>", "<a>", "<b>", "<c>"}
