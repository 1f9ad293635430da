"""Describes a model in one or several GGUF files."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.gguf.config import (
    ROPE_FACTORS,
    architecture_of,
    check_shapes,
    hf_name,
    read_config,
)
from edge_tui.engine.checkpoints.gguf.header import GgufTensor, Header, read_header
from edge_tui.engine.checkpoints.gguf.kinds import read_bytes
from edge_tui.engine.checkpoints.gguf.tokenizer import Vocabulary
from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint, StoredTensor
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer as FastTokenizer

    from edge_tui.engine.checkpoints.gguf.weights import GgufReader

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
ENDS = ("model.embed_tokens.weight", "lm_head.weight")
"""Embedding and head, which are read before the layers."""
_MAX_FACTORS = 4096
"""Rotary factors of the widest head, with room."""


@dataclass(frozen=True)
class GgufModel:
    """Holds what the files of one model say.

    Attributes:
        name: As the user named it.
        files: The file, or all parts of a split one.
        config: As config.json would have it.
        tensors: File and description by the names that a Hugging Face checkpoint gives them.
        heads: Number of heads of each tensor whose rows llama.cpp has interleaved.
        norm_offset: Excess of stored norms over those of a Hugging Face checkpoint.
        tokenizer_config: As tokenizer_config.json would have it, with the chat template.
        end_ids: Every id that ends a text or a turn.
    """

    name: str
    files: tuple[Path, ...]
    config: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, tuple[Path, GgufTensor]] = field(repr=False)
    heads: Mapping[str, int] = field(repr=False)
    norm_offset: float
    tokenizer_config: Mapping[str, Any] = field(repr=False)
    end_ids: tuple[int, ...]

    @cached_property
    def stored(self) -> dict[str, StoredTensor]:
        """The tensors as a checkpoint lists them; the kind takes the place of the dtype."""
        return {
            name: StoredTensor(tensor.kind.name, tensor.shape, tensor.bytes)
            for name, (_, tensor) in self.tensors.items()
        }

    def read_copy(self, ends: bool) -> int:
        """Counts the bytes of the copy that reading the largest tensor makes.

        Args:
            ends: True for embedding and head, False for the tensors of the layers.
        """
        copies = (
            read_bytes(tensor.kind, tensor.bytes)
            for name, (_, tensor) in self.tensors.items()
            if (name in ENDS) == ends
        )
        return max(copies, default=0)

    @property
    def tokenizer_file(self) -> Path | None:
        """A tokenizer.json beside the file, which counts for more than the metadata; None without one."""
        beside = self.files[0].parent / "tokenizer.json"
        return beside if beside.is_file() else None

    def vocabulary(self) -> Vocabulary:
        """Reads the tokens in the metadata.

        Raises:
            CheckpointError: there are none, or they do not fit the embedding.
        """
        return Vocabulary(self.name, read_header(self.files[0]), self.config["vocab_size"])

    def open_tensors(self) -> GgufReader:
        """Opens the files.

        Raises:
            WeightsError: one cannot be read.
        """
        from edge_tui.engine.checkpoints.gguf.weights import GgufReader

        return GgufReader(self.name, self.tensors, self.heads, self.norm_offset)

    def make_tokenizer(self) -> FastTokenizer:
        """Makes the tokenizer of the metadata.

        Raises:
            CheckpointError: its kind is not read, or it is broken.
        """
        return self.vocabulary().tokenizer()


def open_gguf(name: str, path: Path) -> GgufModel:
    """Reads the headers of a model's files and checks that they fit one another.

    Args:
        name: As the user named the model.
        path: The file, or any part of a split one.

    Raises:
        CheckpointError: it is foreign, damaged, incomplete, or of a kind that is not read.
    """
    headers = tuple(read_header(file) for file in parts_of(name, path))
    return _describe(name, headers, (path.parent / "tokenizer.json").is_file())


@lru_cache(maxsize=16)
def _describe(name: str, headers: tuple[Header, ...], own_tokenizer: bool) -> GgufModel:
    """Joins the headers of a model's files into one description, and checks it."""
    files, first = tuple(header.path for header in headers), headers[0]
    stored: dict[str, tuple[Path, GgufTensor]] = {}
    for file, header in zip(files, headers, strict=True):
        if doubled := stored.keys() & header.tensors.keys():
            again = one_line(min(doubled))[:80]
            raise IncompleteCheckpoint(f"{file.name} repeats the tensor {again}; fetch it again.")
        stored |= {key: (file, tensor) for key, tensor in header.tensors.items()}
    _check_parts(name, headers, len(stored))
    architecture = architecture_of(name, first)
    tensors = {key: tensor for key, (_, tensor) in stored.items()}
    factors = {key: _factors(name, *stored[key]) for key in ROPE_FACTORS if key in stored}
    config = read_config(name, first, tensors, factors)
    check_shapes(name, architecture, config, tensors)
    vocabulary = Vocabulary(name, first, config["vocab_size"])
    if not own_tokenizer:
        vocabulary.check()
    named = {new: key for key in stored if (new := hf_name(key, architecture)) is not None}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    interleaved = {
        new: heads[part]
        for new in named
        if architecture.interleaved and (part := new.split(".")[-2]) in heads
    }
    return GgufModel(
        name=name,
        files=files,
        config=config,
        tensors={new: stored[key] for new, key in named.items()},
        heads=interleaved,
        norm_offset=architecture.norm_offset,
        tokenizer_config=vocabulary.settings(),
        end_ids=tuple(vocabulary.end_ids()),
    )


def parts_of(name: str, path: Path) -> tuple[Path, ...]:
    """Returns all files of a model by the name of one of them.

    Raises:
        IncompleteCheckpoint: a part is missing.
    """
    names = part_names(path.name)
    missing = [part for part in names if not (path.parent / part).is_file()]
    if names != [path.name] and (missing or not names):
        raise IncompleteCheckpoint(
            f"{name} lacks {len(missing):,} of the {len(names):,} files that it is split into, first "
            f"{missing[0] if missing else 'all'}; fetch the rest."
        )
    return tuple(path.parent / part for part in names)


def part_names(file: str) -> list[str]:
    """Lists the names of all files of a model by that of one of them; its own where it is not split."""
    split = _SPLIT.fullmatch(file)
    if split is None:
        return [file]
    count = int(split[3])
    return [f"{split[1]}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]


def first_parts(files: Iterable[str]) -> list[str]:
    """Selects the names of GGUF files that are models, split ones by the first part there is, in order."""
    models: dict[object, str] = {}
    for file in sorted(file for file in files if file.lower().endswith(".gguf") and "mmproj" not in file):
        split = _SPLIT.fullmatch(file)
        models.setdefault((split[1], split[3]) if split else file, file)
    return list(models.values())


def models_in(folder: Path) -> list[Path]:
    """Lists the GGUF files of a folder that are models, as `first_parts` does.

    Raises:
        OSError: it cannot be read.
    """
    return [folder / name for name in first_parts(file.name for file in folder.iterdir())]


def _check_parts(name: str, headers: Sequence[Header], tensors: int) -> None:
    """Refuses parts that do not belong together.

    Raises:
        IncompleteCheckpoint: they do not.
    """
    stated = headers[0].metadata
    count, total = stated.get("split.count", 1), stated.get("split.tensors.count", tensors)
    numbers = [header.metadata.get("split.no", 0) for header in headers]
    if (count or 1) != len(headers) or numbers != list(range(len(headers))) or total != tensors:
        raise IncompleteCheckpoint(
            f"{name} has {len(headers)} of {count} files with {tensors:,} of {total:,} tensors; "
            "put all files of one model into its folder under their own names."
        )


def _factors(name: str, file: Path, tensor: GgufTensor) -> list[float]:
    """Reads a small float32 tensor of rotary factors."""
    if tensor.kind.name != "F32" or tensor.bytes > 4 * _MAX_FACTORS:
        raise CheckpointError(f"{name} has rotary factors of a kind that is not read; take another file.")
    with file.open("rb") as stream:
        stream.seek(tensor.offset)
        return list(struct.unpack(f"<{tensor.bytes // 4}f", stream.read(tensor.bytes)))
