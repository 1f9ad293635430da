"""Tokenizers out of GGUF metadata against tokenizer.json files of the same vocabulary."""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges

from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint, pair_refusal
from edge_tui.engine.checkpoints.gguf.header import read_header
from edge_tui.engine.checkpoints.gguf.tokenizer import PRE_TOKENIZERS, Vocabulary
from edge_tui.engine.text import tokenizer as text
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import CHAT_TEMPLATE, SPECIAL, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS = (
    *(
        "the",
        " The",
        " quick",
        "brown",
        " don't",
        "WE'LL",
        " I'd",
        "naïve",
        "e\u0301",
        "ﬁ",
        "Å",
        " straße",
        "10",
        "007",
    ),
    *(
        "3.14",
        "1234567",
        "½",
        "Ⅷ",
        "٣",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        " \n ",
        "=",
        "==>",
        "$x^2|<",
        "…",
    ),
    *(
        "!?",
        "「",
        "日本語",
        "한국어",
        "русский",
        "हिन्दी",
        "🙂",
        "👩‍👩‍👧",
        "\u00a0",
        "\u200b",
        "_",
        "__init__",
        "://",
        "#",
        "\x00",
    ),
    *SPECIAL,
    *("<|endoftext", "<s>", "▁", "Ġ"),
)


def strings(count: int) -> list[str]:
    rng = random.Random(count)
    return ["", *("".join(rng.choices(_WORDS, k=rng.randint(1, 12))) for _ in range(count))]


_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PUBLISHED: dict[str, Callable[[], Any]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": lambda: _split(_LLAMA3),
    "qwen2": lambda: _split(_LLAMA3.replace("{1,3}", "")),
    "tekken": lambda: _split(_TEKKEN),
}
"""Pre-tokenizers as the models' own tokenizer.json have them."""


def _split(pattern: str) -> Any:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), last])


def published(
    pre: str, vocab: dict[str, int], merges: list[tuple[str, str]], control: list[str]
) -> Tokenizer:
    """Makes a tokenizer as the model's own tokenizer.json has it."""
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer = _PUBLISHED[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(control)
    return tokenizer


def trained(pre: str) -> Tokenizer:
    """Trains a small byte-level tokenizer that splits as a model's own does."""
    tokenizer = published(pre, {}, [], [])
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(strings(2_000), trainer)
    return tokenizer


@pytest.mark.parametrize("pre", _PUBLISHED)
def test_byte_level_tokenizers_are_those_of_tokenizer_json(pre: str, tmp_path: Path) -> None:
    twin = trained(pre)
    folder = make_checkpoint(tmp_path / "m", "llama", vocab=720)
    twin.save(str(folder / "tokenizer.json"))
    file = write_gguf(folder, tmp_path / "m.gguf", fields={"tokenizer.ggml.pre": pre})
    checkpoint = open_checkpoint(str(file))
    own = checkpoint.read_tokenizer()
    for string in strings(400):
        expected = twin.encode(string).ids
        assert own.encode(string).ids == expected
        assert own.decode(expected) == twin.decode(expected)
    assert pair_refusal(checkpoint, open_checkpoint(str(folder))) is None


def test_the_default_splits_as_llama_cpp_does(tmp_path: Path) -> None:
    fields = {"tokenizer.ggml.pre": None}
    file = write_gguf(make_checkpoint(tmp_path / "m", "llama"), tmp_path / "m.gguf", fields=fields)
    own = open_checkpoint(str(file)).read_tokenizer()
    pieces = [piece for piece, _ in own.pre_tokenizer.pre_tokenize_str("It's a=b, 12345 x")]
    assert pieces == ["It", "'", "s", "Ġa", "=", "b", ",", "Ġ", "123", "45", "Ġx"]


def sentencepiece(prefix: bool) -> tuple[Tokenizer, list[str], list[float]]:
    """Makes a sentencepiece tokenizer as transformers converts one; its pieces and their scores."""
    alphabet = sorted(
        {char for string in strings(500) for char in string.replace(" ", "▁") if char < "\u3000"}
    )
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    trainee = Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainee.train_from_iterator(strings(2_000), trainer)
    ids = trainee.get_vocab()
    ordinary = [piece for piece in sorted(ids, key=ids.__getitem__) if piece not in ("<s>", "</s>", "<unk>")]
    joined = [piece for piece in ordinary if len(piece) > 1]
    single = [piece for piece in ordinary if len(piece) == 1]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, *joined, *single]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(joined) + len(single))]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = generate_merges(vocab, {piece: scores[i] for piece, i in vocab.items()})
    twin = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    twin.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if prefix else [spaces])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    twin.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    twin.add_special_tokens(["<unk>", "<s>", "</s>"])
    return twin, pieces, scores


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_tokenizer_is_that_of_tokenizer_json(prefix: bool, tmp_path: Path) -> None:
    twin, pieces, scores = sentencepiece(prefix)
    folder = make_checkpoint(tmp_path / "m", "llama", vocab=1300)
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)],
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": None,
        "tokenizer.ggml.add_space_prefix": prefix,
    }
    checkpoint = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf", fields=fields)))
    own = checkpoint.read_tokenizer()
    for string in strings(400):
        expected = twin.encode(string).ids
        assert own.encode(string).ids == expected
        assert own.decode(expected) == twin.decode(expected)
    assert text.Tokenizer.open(checkpoint).encode("the")[0] == 1, "a raw text begins with BOS"


def test_ends_and_template_come_from_the_metadata(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", chat_template=True)
    fields = {
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.eot_token_id": 1,
        "tokenizer.ggml.bos_token_id": 1,
    }
    checkpoint = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf", fields=fields)))
    assert checkpoint.eos_ids == (0, 1, 2), "the third has no role, and its name says that it ends a turn"
    assert (checkpoint.eos_token, checkpoint.bos_id) == (SPECIAL[0], 1)
    assert checkpoint.chat_template == CHAT_TEMPLATE
    assert checkpoint.tokenizer_config["bos_token"] == SPECIAL[1]


def test_padding_is_no_token(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama")
    plain = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf")))
    header = read_header(tmp_path / "m.gguf")
    fields = {
        "tokenizer.ggml.tokens": [*header.read_array("tokenizer.ggml.tokens"), "[PAD300]"],
        "tokenizer.ggml.token_type": [*header.read_array("tokenizer.ggml.token_type"), 5],
    }
    padded = open_checkpoint(str(write_gguf(folder, tmp_path / "p.gguf", fields=fields)))
    assert padded.read_tokenizer().get_vocab_size() == 300
    assert pair_refusal(plain, padded) is None


def test_a_tokenizer_json_beside_the_file_wins(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "llama", vocab=720)
    (tmp_path / "one").mkdir()
    fields = {"tokenizer.ggml.pre": "unheard-of"}
    file = write_gguf(folder, tmp_path / "one" / "m.gguf", fields=fields)
    with pytest.raises(CheckpointError, match="unheard-of"):
        open_checkpoint(str(file))
    twin = trained("qwen2")
    twin.save(str(tmp_path / "one" / "tokenizer.json"))
    checkpoint = open_checkpoint(str(file))
    assert checkpoint.read_tokenizer().encode("naïve 10").ids == twin.encode("naïve 10").ids
    small = write_gguf(make_checkpoint(tmp_path / "s", "llama", vocab=320), tmp_path / "one" / "s.gguf")
    with pytest.raises(CheckpointError, match="more than the 320"):
        open_checkpoint(str(small)).read_tokenizer()


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published vocabularies with texts and their ids, out of llama.cpp's sources on PyPI."""
    folder = tmp_path_factory.mktemp("llama.cpp")
    name = "llama-cpp-python"
    order = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, name]
    subprocess.run([*order, "-d", str(folder)], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        wanted = [member for member in archive if "/models/ggml-vocab-" in member.name]
        archive.extractall(folder, wanted, filter="data")
    return next(folder.glob("*/vendor/llama.cpp/models"))


_BYTE_LEVEL = ("gpt-2", "llama-bpe", "qwen2", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "mpt")
_VOCABULARIES = (*_BYTE_LEVEL, "refact", "starcoder", "llama-spm", "phi-3")


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", _VOCABULARIES)
def test_published_vocabularies_read_texts_as_published(which: str, llama_cpp: Path) -> None:
    file = llama_cpp / f"ggml-vocab-{which}.gguf"
    own = text.Tokenizer(Vocabulary(which, read_header(file), 2**31).tokenizer(), add_bos=False)
    texts = Path(f"{file}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    ids = [list(map(int, line.split())) for line in Path(f"{file}.out").read_text().splitlines()]
    assert len(ids) > 40
    assert [own.encode(string, special=False) for string in texts[: len(ids)]] == ids


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", ["gpt-2", "llama-bpe", "qwen2"])
def test_ten_thousand_strings_of_published_vocabularies(which: str, llama_cpp: Path) -> None:
    vocabulary = Vocabulary(which, read_header(llama_cpp / f"ggml-vocab-{which}.gguf"), 2**31)
    own = vocabulary.tokenizer()
    control = [t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if t and kind in (3, 4)]
    twin = published(which, vocabulary.ids(), vocabulary.merges(), control)
    many = strings(10_000)
    expected = [encoding.ids for encoding in twin.encode_batch(many)]
    assert [encoding.ids for encoding in own.encode_batch(many)] == expected


def test_every_name_of_a_pre_tokenizer_makes_one() -> None:
    for how in PRE_TOKENIZERS.values():
        for pattern in how.patterns:
            pre_tokenizers.Split(Regex(pattern), "isolated")
