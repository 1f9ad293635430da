"""Reads the header of a GGUF file: metadata, and each tensor's kind, shape and place.

Every count, length and offset is held against the file's size before it is used, because a header may lie:
a damaged file costs one sentence, never memory. Long arrays (a vocabulary has 150,000 strings) are passed
over and read on demand. The file is mapped, so no weight is read.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, prod
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.gguf.kinds import KINDS, UNREAD, Kind
from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint, check_pointer
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of numbers in metadata, as `struct` spells them."""
_FLOAT32 = 6
_MAX_KEY = 65_535
_MAX_TEXT = 4_000_000
"""Bytes of the longest string that is read: a chat template has some 50,000."""
_MAX_STRINGS = 4_000_000
"""Strings of the longest array; the largest vocabularies have some 300,000."""
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 2**20
_LEAST_ENTRY, _LEAST_TENSOR = 13, 32
"""Bytes of the shortest metadata entry and the shortest description of a tensor."""


@dataclass(frozen=True, slots=True)
class Array:
    """Tells where an array of metadata lies.

    Attributes:
        type: Number of its elements' type.
        count: Number of elements.
        offset: First byte of the first element.
    """

    type: int
    count: int
    offset: int


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Describes one tensor.

    Attributes:
        kind: Storage of its numbers.
        shape: Outermost first, as torch has it; the file has it the other way round.
        offset: First byte, from the file's beginning.
        bytes: Length.
    """

    kind: Kind
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Header:
    """Holds what one GGUF file says about itself.

    Attributes:
        path: The file.
        metadata: Values by key, e.g. "llama.block_count".
        tensors: By their names in the file.
    """

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, GgufTensor]

    def read_array(self, key: str) -> list[str] | list[int] | list[float]:
        """Reads an array of metadata; empty if there is none of that name.

        Raises:
            IncompleteCheckpoint: the file cannot be read, or a string in it is no UTF-8.
        """
        array = self.metadata.get(key)
        if not isinstance(array, Array):
            return []
        with _mapped(self.path) as data, _explained(self.path):
            if array.type != _STRING:
                return list(struct.unpack_from(f"<{array.count}{_NUMBERS[array.type]}", data, array.offset))
            cursor = _Cursor(data, array.offset)
            return [cursor.text() for _ in range(array.count)]


class _DamagedError(ValueError):
    """Tells what is wrong with a file, as the rest of a sentence that begins with its name."""


class _Cursor:
    """Reads values one after another and never beyond the end."""

    def __init__(self, data: mmap.mmap, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self._data) - self.at

    def skip(self, count: int) -> int:
        """Passes over bytes and returns where they begin."""
        if count > self.left:
            raise _DamagedError(f"is truncated: its header goes on beyond its {len(self._data):,} bytes")
        at = self.at
        self.at += count
        return at

    def number(self, code: str) -> int | float | bool:
        at = self.skip(struct.calcsize("<" + code))
        value: int | float | bool = struct.unpack_from("<" + code, self._data, at)[0]
        if code == "f":  # 1e-05, not 9.99999974e-06: the decimal that was written
            return _shortest(float(value))
        return value

    def count(self, code: str = "Q") -> int:
        return int(self.number(code))

    def text(self, limit: int = _MAX_TEXT) -> str:
        length = self.count()
        if length > limit:
            raise _DamagedError(f"has a string of {length:,} bytes in its header, more than {limit:,}")
        at = self.skip(length)
        return self._data[at : at + length].decode("utf-8")


def _shortest(value: float) -> float:
    """Returns the shortest decimal that is the same number in float32."""
    if not isfinite(value):
        return value
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def read_header(path: Path) -> Header:
    """Reads the header of a file, once per version of it.

    Raises:
        CheckpointError: it is no GGUF file of this computer's byte order, or has a kind that is not read.
        IncompleteCheckpoint: it is truncated, or its header contradicts itself.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise IncompleteCheckpoint(f"{path} cannot be read ({error.strerror}); fetch it again.") from error
    return _read_header(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _read_header(path: Path, _mtime: int, size: int) -> Header:
    """Reads the header; time and size of the file are the key of the cache."""
    if size < len(MAGIC) + 20:
        check_pointer(path.name, path)
        raise IncompleteCheckpoint(f"{path.name} has {size} bytes, too few for a GGUF file; fetch it again.")
    with _mapped(path) as data, _explained(path):
        cursor = _Cursor(data)
        _check_magic(path, data[:8])
        cursor.skip(8)
        tensor_count, entries = cursor.count(), cursor.count()
        if entries * _LEAST_ENTRY + tensor_count * _LEAST_TENSOR > cursor.left:
            raise _DamagedError(f"promises {tensor_count:,} tensors, more than its {size:,} bytes can hold")
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = cursor.text(_MAX_KEY)
            if not key or key in metadata:
                raise _DamagedError(f"has the metadata {one_line(key)[:80]!r} twice or without a name")
            metadata[key] = _value(cursor, cursor.count("I"))
        tensors = _tensors(path, cursor, tensor_count, _alignment(metadata))
        return Header(path, metadata, tensors)


def _check_magic(path: Path, head: bytes) -> None:
    """Refuses foreign files, old versions, and the byte order of big-endian machines."""
    if head[:4] != MAGIC:
        check_pointer(path.name, path)
        raise CheckpointError(f"{path.name} is not a GGUF file: it does not begin with GGUF; fetch it again.")
    version = int.from_bytes(head[4:], "little")
    if version not in _VERSIONS and int.from_bytes(head[4:], "big") in _VERSIONS:
        raise CheckpointError(
            f"{path.name} is a GGUF file for big-endian machines; take the usual little-endian one."
        )
    if version not in _VERSIONS:
        raise CheckpointError(
            f"{path.name} is GGUF of version {version}, and 2 and 3 are read; convert the model again."
        )


def _value(cursor: _Cursor, type_: int) -> Value:
    """Reads a value of metadata; of an array its place alone."""
    if type_ in _NUMBERS:
        return cursor.number(_NUMBERS[type_])
    if type_ == _STRING:
        return cursor.text()
    if type_ != _ARRAY:
        raise _DamagedError(f"has metadata of the type {type_}, which GGUF does not know")
    inner, count = cursor.count("I"), cursor.count()
    at = cursor.at
    if inner in _NUMBERS:
        cursor.skip(count * struct.calcsize("<" + _NUMBERS[inner]))
    elif inner == _STRING:
        if count > min(_MAX_STRINGS, cursor.left // 8):
            raise _DamagedError(f"promises {count:,} strings in an array of its metadata")
        for _ in range(count):
            cursor.skip(cursor.count())
    else:
        raise _DamagedError(f"has an array of the type {inner} in its metadata, which is not read")
    return Array(inner, count, at)


def _alignment(metadata: Mapping[str, Value]) -> int:
    stated = metadata.get("general.alignment", 32)
    if not isinstance(stated, int) or not 0 < stated <= _MAX_ALIGNMENT or stated & (stated - 1):
        raise _DamagedError(f"states an alignment of {one_line(str(stated))[:40]}, which is no power of two")
    return stated


def _tensors(path: Path, cursor: _Cursor, count: int, alignment: int) -> dict[str, GgufTensor]:
    """Reads the descriptions of all tensors, and checks that each lies inside the file."""
    found: dict[str, tuple[Kind, tuple[int, ...], int]] = {}
    for _ in range(count):
        name = cursor.text(_MAX_KEY)
        shown = one_line(name)[:80]
        dimensions = cursor.count("I")
        if not name or name in found or not 0 < dimensions <= _MAX_DIMENSIONS:
            raise _DamagedError(f"describes the tensor {shown!r} twice or with {dimensions} dimensions")
        shape = tuple(reversed([cursor.count() for _ in range(dimensions)]))
        number, offset = cursor.count("I"), cursor.count()
        if (kind := KINDS.get(number)) is None:
            what = UNREAD.get(number, f"of the unknown kind {number}")
            raise CheckpointError(
                f"{path.name} stores {shown} as {what}, which is not read; "
                "take a file in Q4_K_M, Q8_0 or F16 of the same model."
            )
        if not prod(shape) or shape[-1] % kind.block:
            raise _DamagedError(
                f"is damaged: {shown} has the shape {list(shape)}, which {kind.name} cannot have"
            )
        if offset % alignment:
            raise _DamagedError(
                f"is damaged: {shown} begins at byte {offset:,}, off the alignment {alignment}"
            )
        found[name] = kind, shape, offset
    data = -(-cursor.at // alignment) * alignment
    size = cursor.at + cursor.left
    tensors = {
        name: GgufTensor(kind, shape, data + offset, prod(shape) // kind.block * kind.bytes)
        for name, (kind, shape, offset) in found.items()
    }
    needed = max((tensor.offset + tensor.bytes for tensor in tensors.values()), default=0)
    if needed > size:
        raise _DamagedError(f"is truncated: it has {size:,} bytes, and its header promises {needed:,}")
    return tensors


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except OSError as error:
        raise IncompleteCheckpoint(
            f"{path} cannot be read ({error.strerror}); check its permissions."
        ) from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what a damaged header raises into one sentence."""
    try:
        yield
    except _DamagedError as error:
        raise IncompleteCheckpoint(f"{path.name} {error}; fetch that file again.") from error
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise IncompleteCheckpoint(
            f"{path.name} has a header that cannot be read ({type(error).__name__}); fetch that file again."
        ) from error
