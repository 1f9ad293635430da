"""How texts are split before byte-level BPE: llama.cpp's recorded pieces, and its ids where it is built."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.gguf.pre_tokenizers import PRE_TOKENIZERS
from edge_tui.engine.text import tokenizer as text
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.checkpoints.gguf.test_tokenizer import strings
from tests.engine.llama_cpp import tokens_program
from tests.engine.random_checkpoints import SPECIAL, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BEGIN = "<begin>"
TEXT = "We'LL HiTea_it's'`1234'sly ==>日本か 한q\u0301!\n\n  \tx      y"
PIECES = {
    "default": "We¦'¦LL¦ HiTea¦_¦it¦'¦s¦'¦`¦123¦4¦'¦sly¦ ¦==>¦日本か¦ 한q¦́¦!¦\n\n  ¦\t¦x¦     ¦ y",
    "falcon": "We¦'¦LL¦ HiTea¦_¦it¦'¦s¦'`¦123¦4¦'¦sly¦ ¦==>¦日本か¦ 한q¦́¦!¦\n\n  ¦\t¦x¦     ¦ y",
    "gpt-2": "We¦'¦LL¦ HiTea¦_¦it¦'s¦'`¦1234¦'s¦ly¦ ==>¦日本か¦ 한q¦́!¦\n\n  ¦\t¦x¦     ¦ y",
    "smollm": "We¦'¦LL¦ HiTea¦_¦it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!¦\n\n  ¦\t¦x¦     ¦ y",
    "llama-bpe": "We¦'LL¦ HiTea¦_it¦'s¦'`¦123¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦     ¦ y",
    "minicpm5": "We¦'LL¦ HiTea¦_it¦'s¦'`¦123¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦     ¦ y",
    "jais-2": "We¦'LL¦ HiTea¦_it¦'s¦'`¦123¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦    ¦ ¦ y",
    "qwen2": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦     ¦ y",
    "qwen35": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q́¦!\n\n¦  ¦\tx¦     ¦ y",
    "ufakzeka": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'sly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦     ¦ y",
    "laguna": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!¦\n\n¦  ¦\tx¦     ¦ y",
    "seed-coder": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!¦\n\n¦  ¦\tx¦     ¦ y",
    "bailingmoe": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か¦ 한q¦́!\n\n¦  ¦\tx¦     ¦ y",
    "exaone-moe": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'s¦ly¦ ==>¦日本か 한q́¦!\n¦\n¦  ¦\tx¦     ¦ y",
    "tekken": "We¦'LL¦ Hi¦Tea¦_it¦'s¦'`¦1¦2¦3¦4¦'sly¦ ==>¦日本か¦ 한q¦!\n\n¦  ¦\tx¦     ¦ y",
    "gpt-4o": "We'LL¦ Hi¦Tea¦_it's¦'`¦123¦4¦'sly¦ ==>¦日本か¦ 한q¦!\n\n¦  ¦\tx¦     ¦ y",
    "deepseek-llm": "We¦'¦LL¦ HiTea¦_¦it¦'¦s¦'`¦1234¦'¦sly¦ ==>¦日本か¦ ¦한¦q¦́¦!¦\n¦\n¦  ¦\tx¦     ¦ y",
    "deepseek-coder": "We¦'¦LL¦ HiTea¦_¦it¦'¦s¦'¦`¦1¦2¦3¦4¦'¦sly¦ ==>¦日本か¦ ¦한¦q¦́¦!¦\n¦\n¦  ¦\tx¦     ¦ y",
    "deepseek-v3": "We¦'LL¦ HiTea¦_it¦'s¦'`¦123¦4¦'sly¦ ==>¦日本か¦ 한q́¦!\n\n¦  ¦\tx¦     ¦ y",
    "spark2_5": "We¦'LL¦ HiTea¦_it¦'s¦'`¦1¦2¦3¦4¦'sly¦ ==>¦日本か¦ 한q́¦!¦\n¦\n¦  ¦\tx¦     ¦ y",
    "poro-chat": "We'LL¦ HiTea_it's'`1234'sly¦ ==>日本か¦ 한q́¦!\n\n  \t¦x¦     ¦ y",
    "viking": "We'LL¦ HiTea_it's'`¦1¦2¦3¦4¦'sly¦ ==>日本か¦ 한q́¦!\n\n  \t¦x¦     ¦ y",
    "chameleon": "We¦'¦LL¦ HiTea¦_¦it¦'¦s¦'¦`¦1¦2¦3¦4¦'¦sly¦ ¦=¦=¦>¦日本か¦ 한q¦́¦!¦\n¦\n¦  ¦\t¦x¦    ¦  ¦y",
}
"""Pieces of the text as llama.cpp makes them, by the first of the names that split so."""


def splits(name: str, string: str) -> list[str]:
    """Returns the pieces of a text."""
    pieces = PRE_TOKENIZERS[name].splitter().pre_tokenize_str(string)
    return [decoders.ByteLevel().decode([piece]) for piece, _ in pieces]


@pytest.mark.parametrize("name", PIECES)
def test_a_text_is_split_as_llama_cpp_splits_it(name: str) -> None:
    assert "¦".join(splits(name, shared(name, TEXT))) == PIECES[name]


def test_every_name_splits_in_a_recorded_way_and_loses_nothing() -> None:
    recorded = {PRE_TOKENIZERS[name].patterns for name in PIECES}
    assert {how.patterns for how in PRE_TOKENIZERS.values()} == recorded
    for name in PIECES:
        assert all("".join(splits(name, string)) == string for string in strings(20))


def test_marks_and_cases_beyond_ascii_count_where_the_model_counts_them() -> None:
    """As llama.cpp quotes the models' expressions, which are not those that it runs."""
    assert splits("tekken", "e\u0301a écÉole") == ["e\u0301a", " éc", "Éole"]
    assert splits("gpt-4o", "e\u0301a's écÉole's") == ["e\u0301a's", " éc", "Éole's"]
    assert splits("llama3", "e\u0301a") == ["e", "\u0301a"]


@pytest.mark.parametrize(("name", "ids"), [("tekken", 2), ("gpt-4o", 3), ("glm4", 1), ("smaug-bpe", 3)])
def test_a_word_without_merges_and_the_beginning(name: str, ids: int, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama")
    fields = {"merges": ["t h"], "pre": name, "bos_token_id": 1, "add_bos_token": None}
    fields = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    checkpoint = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf", fields=fields)))
    assert len(text.Tokenizer.open(checkpoint).encode(" the")) == ids


_CODE = (
    "HelloWorld",
    "camelCase",
    "YOU'RE",
    "'S",
    "'Ve",
    " 'd",
    "don’t",
    "1000000",
    " 42",
    "// ",
    "/*",
    "x=1",
)
_SPACES = ("\n\t", "\n   ", "   \n\n  ", " " * 9, " " * 40, "\u2028", "\u3000", "\x85", "\x1c", "\x0b")
_SIGNS = ("``", "'", '"', "()", "[]", "。", "、", "！", "²", "€", "±", "~", "`", "^", "🏽")
_LETTERS = (
    "ÉCOLE",
    "éCole",
    "ตัวอย่าง",
    "বাংলা",
    "カタカナ",
    "ひら",
    "中文",
    "ﾊﾝ",
    "٠١",
    "ǅ",
    "ʰ",
    "𝒜",
    "𐐀",
    "Ω",
)
_WORDS = (*_CODE, *_SPACES, *_SIGNS, *_LETTERS)
_MARKED = frozenset(("tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"))
"""Names whose marks, and cases beyond ASCII, llama.cpp leaves out."""
_SPACED = frozenset(("deepseek-llm", "deepseek-coder"))
"""Names whose expressions list spaces that llama.cpp replaces before it searches."""


@cache
def random_texts(count: int) -> list[str]:
    """Makes texts of words, and of characters out of all of Unicode."""
    rng = random.Random(count)
    chars = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x20000))]
    chars = [char for char in chars if unicodedata.category(char) not in ("Cn", "Co")]
    words = (*(string for string in strings(300) if len(string) < 12), *_WORDS)

    def part() -> str:
        return rng.choice(words if rng.random() < 0.7 else chars[: rng.choice((0x300, 0x3100, len(chars)))])

    return ["".join(part() for _ in range(rng.randint(1, 12))) for _ in range(count)]


def shared(name: str, string: str) -> str:
    """Returns a text without what llama.cpp reads otherwise than the expression has it."""
    string = string.replace("\u017f", "").replace("\u212a", "")  # which fold to s and k
    if PRE_TOKENIZERS[name].compose:
        string = unicodedata.normalize("NFC", string)
    if name in _MARKED:
        cased = ("Lu", "Ll", "Lt", "Mn", "Mc", "Me")
        string = "".join(c for c in string if c.isascii() or unicodedata.category(c) not in cased)
    if name in _SPACED:
        string = "".join(c for c in string if c.isascii() or not c.isspace())
    return string


def llama_ids(file: Path, texts: Sequence[str]) -> list[list[int]]:
    """Returns llama.cpp's ids of each text."""
    sent = b"".join(struct.pack("<I", len(data := string.encode())) + data for string in texts)
    done = subprocess.run([str(tokens_program()), str(file)], input=sent, capture_output=True, check=True)
    words = [word for (word,) in struct.iter_unpack("<i", done.stdout)]
    found, at = [], 0
    for _ in texts:
        found.append(words[at + 1 : at + 1 + words[at]])
        at += 1 + words[at]
    assert at == len(words)
    return found


def vocabulary(name: str, tokens: list[str], merges: list[str]) -> dict[str, Any]:
    """Returns the metadata of a byte-level vocabulary whose last token begins a text."""
    stated = {
        "pre": name,
        "tokens": [*tokens, BEGIN],
        "token_type": [3 if token in (*SPECIAL, BEGIN) else 1 for token in (*tokens, BEGIN)],
        "merges": merges,
        "bos_token_id": len(tokens),
        "eos_token_id": 0,
        "add_bos_token": None,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in stated.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A checkpoint, and tokens and merges that cross every border where a text could be split.

    Some merges are left out, so that their tokens are found as whole words or not at all.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1_500,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(random_texts(3_001), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [" ".join(pair) for at, pair in enumerate(model["merges"]) if at % 9]
    folder = tmp_path_factory.mktemp("llama")
    return make_checkpoint(folder / "m", "llama", vocab=len(tokens) + 1), tokens, merges


llama_cpp = pytest.mark.skipif(
    not tokens_program().exists(), reason="llama.cpp is not built; see tests.engine.llama_cpp"
)


@llama_cpp
@pytest.mark.proof
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_ids_are_those_of_llama_cpp(
    name: str, trained: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    folder, tokens, merges = trained
    file = write_gguf(folder, tmp_path / "m.gguf", fields=vocabulary(name, tokens, merges))
    own = text.Tokenizer.open(open_checkpoint(str(file)))
    texts = [shared(name, string) for string in random_texts(3_000 if name in PIECES else 300)]
    for string, expected in zip(texts, llama_ids(file, texts), strict=True):
        assert own.encode(string) == expected, ascii(string)


@llama_cpp
@pytest.mark.proof
@pytest.mark.timeout(600)
def test_recorded_pieces_are_those_of_llama_cpp(tmp_path: Path) -> None:
    """In a vocabulary of every part of the text, where each piece becomes one token."""
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(TEXT)[0][0]
    size = len(letters)
    parts = {letters[at : at + length]: None for length in range(1, size + 1) for at in range(size)}
    tokens = [*SPECIAL, *dict.fromkeys([*pre_tokenizers.ByteLevel.alphabet(), *parts])]
    merges = [f"{part[:cut]} {part[cut:]}" for part in parts for cut in range(1, len(part))]
    folder = make_checkpoint(tmp_path / "m", "llama", vocab=len(tokens) + 1)
    decoder, found = decoders.ByteLevel(), {}
    for name in PIECES:
        file = write_gguf(folder, tmp_path / "m.gguf", fields=vocabulary(name, tokens, merges))
        ids = [at for at in llama_ids(file, [shared(name, TEXT)])[0] if at < len(tokens)]
        found[name] = "¦".join(decoder.decode([tokens[at]]) for at in ids)
    assert found == PIECES
