"""GGUF files that cannot be used: one sentence each, nothing loaded, no memory by what a header promises."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.weight_files import IncompleteCheckpoint, WeightsError
from edge_tui.engine.models.loader import LoadError, load
from edge_tui.engine.port import ModelSpec
from tests.engine.checkpoints.gguf.files import add, write_gguf
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "twin", "llama")


def refusal(path: Path, kind: type[CheckpointError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(str(path))
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert ";" in sentence, "a refusal says what to do"
    assert "\n" not in sentence
    return sentence


def test_a_truncated_file(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf")
    whole = file.read_bytes()
    for length in (0, 3, 20, 40, 400, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        sentence = refusal(file, IncompleteCheckpoint)
        assert "m.gguf" in sentence
        assert "fetch" in sentence


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PK\x03\x04" + bytes(60), "is not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(60), "version 1"),
        (b"GGUF" + struct.pack("<I", 77) + bytes(60), "version 77"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1) + bytes(60), "more than its 84 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + bytes(60), "more than its 84 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(60), "no architecture"),
        (b"version https://git-lfs.github.com/spec/v1\n" + bytes(60), "Git LFS pointer"),
    ],
)
def test_a_foreign_file(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(head)
    assert words in refusal(tmp_path / "m.gguf")


def raw_entry(key: str, type_: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", type_) + value


@pytest.mark.parametrize(
    "entry",
    [
        raw_entry("a", 8, struct.pack("<Q", 2**62)),
        raw_entry("a", 8, struct.pack("<Q", 2**64 - 1)),
        raw_entry("a", 9, struct.pack("<IQ", 4, 2**62)),
        raw_entry("a", 9, struct.pack("<IQ", 8, 2**62)),
        raw_entry("a", 9, struct.pack("<IQ", 9, 1)),
        raw_entry("a", 13, b""),
        raw_entry("", 4, bytes(4)),
        raw_entry("general.alignment", 4, struct.pack("<I", 0)),
        raw_entry("general.alignment", 4, struct.pack("<I", 33)),
        raw_entry("general.alignment", 8, struct.pack("<Q", 0)),
        raw_entry("a", 8, struct.pack("<Q", 2) + b"\xff\xfe"),
    ],
)
def test_metadata_that_lies_about_itself(tmp_path: Path, entry: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry + bytes(100))
    tracemalloc.start()
    refusal(tmp_path / "m.gguf", IncompleteCheckpoint)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "kind", "offset", "words"),
    [
        ((2**40, 2**20), 0, 0, "is truncated"),
        ((2**63, 2**63), 0, 0, "is truncated"),
        ((0, 4), 0, 0, "has the shape"),
        ((33,), 8, 0, "has the shape"),
        ((4,), 0, 2**63 - 32, "is truncated"),
        ((4,), 0, 7, "off the alignment 32"),
        ((256,), 23, 0, "as IQ4_XS, which is not read; take a file in Q4_K_M, Q8_0 or F16"),
        ((256,), 34, 0, "as TQ1_0"),
        ((256,), 10, 0, "as Q2_K"),
        ((256,), 999, 0, "unknown kind 999"),
        ((1,) * 5, 0, 0, "5 dimensions"),
        ((), 0, 0, "0 dimensions"),
    ],
)
def test_tensors_that_cannot_be(
    tmp_path: Path, shape: tuple[int, ...], kind: int, offset: int, words: str
) -> None:
    tensor = struct.pack("<Q", 1) + b"t" + struct.pack("<I", len(shape))
    tensor += b"".join(struct.pack("<Q", n) for n in shape) + struct.pack("<IQ", kind, offset)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor + bytes(256))
    assert words in refusal(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"llama.block_count": 3}, "no tensor blk.2."),
        ({"llama.block_count": 1}, "with 1 layers do not have"),
        ({"llama.block_count": 2**31 - 1}, "too few for 2,147,483,647 layers"),
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": "two"}, "llama.block_count is two"),
        ({"llama.embedding_length": 128}, "has the shape"),
        ({"llama.attention.head_count": 8}, "has the shape"),
        ({"llama.attention.head_count": 0}, "head_count is 0"),
        ({"llama.attention.head_count_kv": [2, 1]}, "a different one for each layer"),
        ({"llama.attention.key_length": 17}, "heads of a width"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan"),
        ({"llama.rope.freq_base": -1.0}, "freq_base is -1.0"),
        ({"llama.rope.dimension_count": 8}, "rotates 8 of 16"),
        ({"llama.rope.scaling.type": "warp\x1b"}, "by warp␛, which is not read"),
        ({"llama.rope.scaling.attn_factor": 0.5}, "scales its scores by rope.scaling.attn_factor"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.attention.scale": 1.0}, "attention.scale in its metadata, which llama models do not have"),
        ({"llama.logit_scale": 0.5}, "logit_scale in its metadata"),
        ({"llama.attention.causal": False}, "attention.causal in its metadata"),
        ({"llama.attn_logit_softcapping": 50.0}, "attn_logit_softcapping in its metadata"),
        ({"llama.use_parallel_residual": True}, "use_parallel_residual in its metadata"),
        ({"general.architecture": "mamba"}, "GGUF file of mamba"),
        ({"tokenizer.ggml.model": "t5"}, "of the kind 't5'"),
        ({"tokenizer.ggml.pre": "kimi-k2"}, "pre-tokenizer 'kimi-k2'"),
        ({"tokenizer.ggml.tokens": ["a"] * 400}, "has 400 tokens"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "2 types of them"),
        ({"tokenizer.ggml.tokens": None}, "has 0 tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.5] * 7}, "7 scores for 300 tokens"),
        *(
            ({f"tokenizer.ggml.{role}_token_id": 300}, f"{role}_token_id is 300 and must be from 0 to 299")
            for role in ("bos", "eos", "eot", "eom", "unknown", "padding")
        ),
        ({"tokenizer.ggml.eos_token_id": np.int32(-1)}, "eos_token_id is -1 and must be from 0 to 299"),
        ({"tokenizer.ggml.eos_token_id": 2**32 - 2}, "eos_token_id is 4294967294"),
        ({"tokenizer.ggml.eos_token_id": "two"}, "eos_token_id is two"),
        ({"llama.vocab_size": 299}, "vocab_size is 299 and must be from 300 to 320, as there are 300 tokens"),
        ({"llama.vocab_size": 321}, "vocab_size is 321"),
        ({"split.count": 2}, "1 of 2 files"),
    ],
)
def test_metadata_that_fits_nothing(
    folder: Path, tmp_path: Path, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = dict(fields)
    if "general.architecture" in fields:
        key, value = fields.popitem()
        monkeypatch.setattr(GGUFWriter, "add_architecture", lambda out: add(out, key, value))
    sentence = refusal(write_gguf(folder, tmp_path / "m.gguf", fields=fields))
    assert words in sentence


def test_a_feature_that_asks_for_nothing_is_none(folder: Path, tmp_path: Path) -> None:
    asked = {
        "logit_scale": 1.0,
        "residual_scale": 0.0,
        "use_parallel_residual": False,
        "attention.causal": True,
    }
    file = write_gguf(folder, tmp_path / "m.gguf", fields={f"llama.{key}": v for key, v in asked.items()})
    assert open_checkpoint(str(file)).layers == 2


def test_rotary_factors_that_are_scaled_once_more(folder: Path, tmp_path: Path) -> None:
    fields = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    file = write_gguf(folder, tmp_path / "m.gguf", fields=fields, rope_freqs=[2.0] * 8)
    assert "by rope_freqs and linear at once" in refusal(file)


def test_tensors_that_are_missing_or_strange(folder: Path, tmp_path: Path) -> None:
    out = GGUFWriter(tmp_path / "m.gguf", "llama")
    out.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 2), np.float32))
    for write in (out.write_header_to_file, out.write_kv_data_to_file, out.write_tensors_to_file, out.close):
        write()
    assert "token_embd.weight" in refusal(tmp_path / "m.gguf")


def test_a_merge_that_is_not_in_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", fields={"tokenizer.ggml.merges": ["q qqq"]})
    checkpoint = open_checkpoint(str(file))
    with pytest.raises(CheckpointError, match=r"tokenizer of .* cannot be made .*qqq"):
        checkpoint.read_tokenizer()


@pytest.mark.parametrize("size", [300, 320])
def test_numbers_at_their_limits(folder: Path, tmp_path: Path, size: int) -> None:
    fields = {"tokenizer.ggml.eos_token_id": 299, "tokenizer.ggml.bos_token_id": 0, "llama.vocab_size": size}
    checkpoint = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf", fields=fields)))
    assert (checkpoint.bos_id, checkpoint.eos_ids[0], checkpoint.vocab) == (0, 299, 320)


def test_a_token_that_there_is_none_of(folder: Path, tmp_path: Path) -> None:
    fields = {f"tokenizer.ggml.{role}_token_id": 2**32 - 1 for role in ("bos", "padding")}
    checkpoint = open_checkpoint(str(write_gguf(folder, tmp_path / "m.gguf", fields=fields)))
    assert checkpoint.bos_id is None


def test_a_split_file_that_misses_its_second_half(folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "m.gguf", split_max_tensors=12)
    first, second = sorted(tmp_path.glob("m-*.gguf"))
    kept = second.read_bytes()
    second.unlink()
    assert "m-00002-of-00002.gguf" in refusal(first, IncompleteCheckpoint)
    only = tmp_path / "only" / second.name
    only.parent.mkdir()
    only.write_bytes(kept)
    for place in (only, only.parent):
        assert "m-00001-of-00002.gguf" in refusal(place, IncompleteCheckpoint)
    second.write_bytes(first.read_bytes())
    assert "repeats the tensor" in refusal(first, IncompleteCheckpoint)
    second.write_bytes(kept)
    assert open_checkpoint(str(first)).layers == 2


def test_several_files_in_one_folder(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    write_gguf(folder, both / "m-Q8_0.gguf")
    assert open_checkpoint(str(both)).path == both / "m-Q8_0.gguf"
    write_gguf(folder, both / "m-F16.gguf", lambda _: Type.F16)
    sentence = refusal(both)
    assert "holds 2 GGUF models" in sentence
    assert f"{both}:F16, {both}:Q8_0." in sentence


def test_a_file_that_becomes_shorter_while_it_is_read(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf")
    checkpoint = open_checkpoint(str(file))
    file.write_bytes(file.read_bytes()[:-4096])
    reader = checkpoint.open_tensors()
    with pytest.raises(WeightsError, match="cut short"):
        reader.read(reader.names()[-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load(ModelSpec(str(file), precision="float32", device="cpu"))


def mutate(whole: bytes, head: int, rng: random.Random) -> bytes:
    """Changes some bytes of a header: noise, numbers at the edges, pieces cut out or doubled."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(4, head)
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                edge = rng.choice([0, 1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64 - 1])
                data[at : at + 8] = struct.pack("<Q", edge)
            case 2:
                data[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 8, 9, 12, 2**31, 2**32 - 1]))
            case 3:
                del data[at : at + rng.randint(1, 64)]
            case _:
                data[at:at] = data[at : at + rng.randint(1, 64)]
    return bytes(data[: rng.randrange(head)] if rng.random() < 0.1 else data)


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.proof)])
def test_mutated_headers_are_read_or_refused(folder: Path, tmp_path: Path, count: int) -> None:
    whole = write_gguf(folder, tmp_path / "m.gguf").read_bytes()
    head = whole.index(b"token_embd.weight") + 2_000
    rng = random.Random(count)
    refused = 0
    for at in range(count):
        file = tmp_path / f"{at}.gguf"
        file.write_bytes(mutate(whole, min(head, len(whole)), rng))
        tracemalloc.start()
        try:
            checkpoint: Checkpoint = open_checkpoint(str(file))
            checkpoint.read_tokenizer()
            load(ModelSpec(str(file), precision="float32", device="cpu", context=16))
        except (CheckpointError, LoadError):
            refused += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * len(whole) + 4_000_000, f"{file} took {peak:,} bytes"
        file.unlink()
    assert 0 < refused <= count
