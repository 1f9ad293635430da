from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError
from edge_tui.engine.text.stop_scanner import StopScanner
from edge_tui.engine.text.tokenizer import Detokenizer, Tokenizer
from tests.engine.random_checkpoints import save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CORPUS = ["the quick brown fox jumps over the lazy dog", "née Ünal — 你好, 世界", "a b  c   d\n\te"]
STRANGE = "👩‍👩‍👧‍👦 🇫🇷 👍🏽 你好世界 שלום é\u0301 \x00 tail"


@cache
def byte_level() -> Tokenizer:
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator(CORPUS, trainer)
    fast.add_special_tokens(["<|end|>"])
    fast.add_tokens([AddedToken("<tool call>", special=False), AddedToken("日本", special=False)])
    return Tokenizer(fast)


@cache
def sentencepiece(*, strip: bool = True) -> Tokenizer:
    """As Llama 2's: spaces as "▁", bytes for what has no piece."""
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz", "é", "你", "▁t", "▁th", "he", "▁▁"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocab |= {piece: 259 + n for n, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("▁t", "h"), ("h", "e"), ("▁", "▁")]
    fast = FastTokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    fast.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if strip else []), normalizers.Replace(" ", "▁")]
    )
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    fast.add_special_tokens(["<unk>", "<s>", "</s>"])
    return Tokenizer(fast)


@cache
def metaspace() -> Tokenizer:
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    fast.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    return Tokenizer(fast)


@cache
def words() -> Tokenizer:
    """A tokenizer of neither family: whole words, joined by spaces."""
    fast = FastTokenizer(
        models.WordPiece({"[UNK]": 0, "the": 1, "fox": 2, "##es": 3, ",": 4}, unk_token="[UNK]")
    )
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.decoder = decoders.WordPiece(cleanup=False)
    return Tokenizer(fast)


TOKENIZERS = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "gemma": lambda: sentencepiece(strip=False),
    "metaspace": metaspace,
    "words": words,
}


def streamed(detokenizer: Detokenizer, ids: Sequence[int]) -> str:
    return "".join(detokenizer.push(token) for token in ids) + detokenizer.flush()


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, tokenizer.size - 1), max_size=30)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(max_size=40) | st.sampled_from([STRANGE, *CORPUS]))
@settings(max_examples=30)
def test_streamed_text_is_the_decoded_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text)
    assert streamed(tokenizer.detokenizer(), ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte-level", "metaspace", "words"])
@given(data=st.data())
@settings(max_examples=40)
def test_streamed_random_ids_are_the_decoded_ids(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = data.draw(ids_of(tokenizer))
    assert streamed(tokenizer.detokenizer(), ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("strip", [True, False])
@given(data=st.data())
@settings(max_examples=40)
def test_byte_fallback_loses_no_valid_character(strip: bool, data: st.DataObject) -> None:
    """The library turns a whole run of bytes into U+FFFD for one bad byte; here the good ones stay."""
    tokenizer = sentencepiece(strip=strip)
    ids = [i for i in data.draw(ids_of(tokenizer)) if i not in tokenizer.special]
    runs: list[bytes] = [b""]
    for token in ids:
        is_byte = 3 <= token < 259
        runs += [] if is_byte and len(runs) % 2 else [b""] if len(runs) % 2 or is_byte else []
        runs[-1] += tokenizer.token_bytes(token)
    expected = "".join(
        "".join(
            "\ufffd" if "\udc80" <= char <= "\udcff" else char
            for char in run.decode("utf-8", "surrogateescape")
        )
        for run in runs
    )
    expected = expected.removeprefix(" ") if strip else expected
    assert streamed(tokenizer.detokenizer(), ids) == expected
    if "\ufffd" not in expected:
        assert expected == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece", "gemma", "metaspace"])
@given(before=st.text(min_size=1, max_size=20), data=st.data())
@settings(max_examples=25)
def test_text_after_a_prompt_continues_it(name: str, before: str, data: st.DataObject) -> None:
    """Cut anywhere, even inside a character, prompt and answer make the whole text."""
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(before + STRANGE)
    cut = data.draw(st.integers(1, len(ids)))
    spelt = [tokenizer.token_bytes(token) for token in ids]
    shown = b"".join(spelt[:cut]).decode(errors="ignore")
    assert streamed(tokenizer.detokenizer(ids[:cut]), ids[cut:]) == b"".join(spelt).decode()[len(shown) :]


@pytest.mark.parametrize("name", ["byte-level", "sentencepiece"])
def test_a_split_emoji_comes_whole_with_its_last_byte(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = [token for token in tokenizer.encode("😀") if tokenizer.token_bytes(token) != b" "]
    detokenizer = tokenizer.detokenizer(tokenizer.encode("x"))
    assert [detokenizer.push(token) for token in ids] == ["", "", "", "😀"]
    assert detokenizer.flush() == ""


def test_sentencepiece_emoji_row_streams() -> None:
    """A run of byte pieces is not held until it ends."""
    tokenizer = sentencepiece()
    detokenizer = tokenizer.detokenizer(tokenizer.encode("x"))
    texts = [detokenizer.push(3 + byte) for byte in "😀😀".encode()]
    assert texts == ["", "", "", "😀"] * 2


def test_an_unfinished_character_is_flushed_once() -> None:
    tokenizer = byte_level()
    detokenizer = tokenizer.detokenizer()
    for token in tokenizer.encode("😀")[:3]:
        assert detokenizer.push(token) == ""
    assert (detokenizer.flush(), detokenizer.flush()) == ("\ufffd", "")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_forks_do_not_share_state(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode("the 😀 fox")
    for cut in range(len(ids)):
        one = tokenizer.detokenizer()
        head = "".join(one.push(token) for token in ids[:cut])
        two = one.fork()
        assert head + streamed(one, ids[cut:]) == tokenizer.decode(ids)
        assert head + streamed(two, ids[cut:]) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_control_tokens_and_unknown_ids_have_no_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    detokenizer = tokenizer.detokenizer()
    for token in (*tokenizer.special, -1, tokenizer.size, 10**9):
        assert detokenizer.push(token) == ""
    assert tokenizer.token_strings([-1, tokenizer.size]) == ["", ""]
    assert tokenizer.decode([-1, tokenizer.size, 10**9]) == ""


def test_pieces_show_spaces_control_tokens_and_loose_bytes() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("😀")
    end = next(iter(tokenizer.special))
    assert tokenizer.token_strings([*ids, end]) == ["⟨F0⟩", "⟨9F⟩", "⟨98⟩", "⟨80⟩", "<|end|>"]
    llama = sentencepiece()
    assert llama.token_strings([259 + 29, 3 + 0xE2, 1]) == [" t", "⟨E2⟩", "<s>"]


def test_added_tokens_are_spelt_as_they_are_decoded() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("a<tool call>日本b")
    assert streamed(tokenizer.detokenizer(), ids) == "a<tool call>日本b" == tokenizer.decode(ids)


def test_lone_surrogates_do_not_break_encoding() -> None:
    tokenizer = byte_level()
    assert tokenizer.decode(tokenizer.encode("a\ud800b\U0001f600")) == "a\ufffdb😀"


def checkpoint(folder: Path, **tokenizer_config: object) -> Checkpoint:
    return Checkpoint("a/b", folder, {}, "LlamaForCausalLM", {}, tokenizer_config=tokenizer_config)


def test_encoding_neither_truncates_nor_pads(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    stored = json.loads(file.read_text())
    stored["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    stored["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    file.write_text(json.dumps(stored))
    tokenizer = Tokenizer.open(checkpoint(tmp_path))
    text = "over the hills and far away"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def with_bos() -> FastTokenizer:
    from tokenizers.processors import TemplateProcessing

    fast = FastTokenizer.from_str(sentencepiece().fast.to_str())
    fast.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return fast


def test_bos_comes_once() -> None:
    tokenizer = Tokenizer(with_bos(), bos_id=1)
    assert tokenizer.encode("the").count(1) == 1
    assert tokenizer.encode("<s>the").count(1) == 1, "a prompt that brings its own"
    assert tokenizer.encode("<s>the", special=False).count(1) == 1, "a rendered chat template"
    assert tokenizer.encode("the", special=False).count(1) == 0


@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("template", [True, False], ids=["tokenizer adds it", "tokenizer does not"])
def test_bos_is_added_as_transformers_adds_it(tmp_path: Path, add_bos: bool | None, template: bool) -> None:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    fast = with_bos()
    if not template:
        fast.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    fast.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": "<s>"} | ({} if add_bos is None else {"add_bos_token": add_bos})
    reference = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **config)
    tokenizer = Tokenizer.open(checkpoint(tmp_path, **config))
    for text in ("the quick", ""):
        assert tokenizer.encode(text) == reference(text)["input_ids"]
        assert tokenizer.encode(text, special=False) == reference(text, add_special_tokens=False)["input_ids"]


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="a/b"):
        Tokenizer.open(checkpoint(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.open(checkpoint(tmp_path))


# ------------------------------------------------------------------------------------------ stop strings


def scanned(stops: Sequence[str], texts: Sequence[str]) -> tuple[list[tuple[int, str]], bool]:
    scanner, out = StopScanner(stops), []
    for index, text in enumerate(texts):
        released, stopped = scanner.push(index, text)
        out += released
        if stopped:
            return out, True
    return out + scanner.flush(), False


def expected_cut(stops: Sequence[str], text: str) -> int | None:
    """Character by character: the first position where a stop string ends, less the longest that does."""
    for end in range(len(text) + 1):
        lengths = [len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if lengths:
            return end - max(lengths)
    return None


few = st.text("ab#", max_size=4)


@given(stops=st.lists(few, max_size=3), texts=st.lists(few, max_size=12))
@example(stops=["ab#"], texts=["a", "b", "#"])
@example(stops=["b#", "a"], texts=["#ab#"])  # the one that ends first
@settings(max_examples=120)
def test_nothing_of_a_stop_string_leaks(stops: list[str], texts: list[str]) -> None:
    out, stopped = scanned(stops, texts)
    cut = expected_cut(stops, "".join(texts))
    assert stopped == (cut is not None)
    assert "".join(text for _, text in out) == "".join(texts)[:cut]
    assert [index for index, _ in out] == list(range(len(out)))


@given(stops=st.lists(few, max_size=3), texts=st.lists(few, max_size=12))
@settings(max_examples=40)
def test_released_text_never_overlaps_a_later_match(stops: list[str], texts: list[str]) -> None:
    scanner, shown = StopScanner(stops), ""
    for index, text in enumerate(texts):
        released, stopped = scanner.push(index, text)
        shown += "".join(piece for _, piece in released)
        cut = expected_cut(stops, "".join(texts))
        assert cut is None or len(shown) <= cut
        if stopped:
            break


pieces = st.lists(st.sampled_from(["a", "b", "<t>"]), max_size=4)


@given(stops=st.lists(pieces.map("".join), max_size=3), stream=st.lists(st.sampled_from("abT"), max_size=12))
@settings(max_examples=120)
def test_control_tokens_in_stop_strings_are_tokens(stops: list[str], stream: list[str]) -> None:
    scanner, shown, stopped = StopScanner(stops, {"<t>": 7}), "", False
    for index, token in enumerate(stream):
        is_control = token == "T"
        released, stopped = scanner.push(index, "" if is_control else token, 7 if is_control else 1)
        shown += "".join(text for _, text in released)
        if stopped:
            break
    shown += "" if stopped else "".join(text for _, text in scanner.flush())
    plain = [stop for stop in stops if stop and "<t>" not in stop]
    marked = [stop.replace("<t>", "T") for stop in stops if "<t>" in stop]
    for end in range(1, len(stream) + 1):
        seen = "".join(stream[:end])
        text = seen.replace("T", "")
        starts = [len(text) - len(stop) for stop in plain if stream[end - 1] != "T" and text.endswith(stop)]
        starts += [
            len(seen[: -len(stop)].replace("T", "")) for stop in marked if stop and seen.endswith(stop)
        ]
        if starts:
            assert (stopped, shown) == (True, text[: min(starts)])
            return
    assert (stopped, shown) == (False, "".join(stream).replace("T", ""))


def test_only_what_may_match_is_held() -> None:
    scanner = StopScanner(["\n\nUser:"])
    assert scanner.push(0, "Hello") == ([(0, "Hello")], False)
    assert scanner.push(1, " you\n") == ([], False)
    assert scanner.push(2, "there") == ([(1, " you\n"), (2, "there")], False)
    assert scanner.push(3, ".\n\nUs") == ([], False)
    assert scanner.push(4, "er: hi") == ([(3, ".")], True)


def test_no_stops_hold_nothing() -> None:
    assert StopScanner(["", ""]).push(0, "x") == ([(0, "x")], False)
