"""Packs columns of tokens into bytes: about 170 a token with twenty alternatives of two distributions each.

Numbers are little-endian and split into their bytes' planes, which is what makes them compressible: the
high bytes of neighbouring log-probabilities are alike, the low ones are noise. Nothing is rounded.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import TokenBatch
from edge_tui.engine.token_fields import TOP, token_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_FORMAT = 1
_WITH_CANDIDATES = 2
"""The same with candidates."""
_HEAD = struct.Struct("<BIHH")
"""Format, records, alternatives, extra columns."""
_LEVEL = 1
"""Of compression: 3 µs a token; the next levels gain 5 % and take twice as long."""

_NARROW = (*token_fields("position", "number", dtype="i4"), *token_fields("number", dtype="f4"))
_WIDE = (
    *token_fields("alternatives", dtype="i4"),
    *token_fields("alternatives", dtype="f4"),
    *token_fields("extras"),
)
(_CANDIDATES,) = token_fields("candidates")
"""The order of the columns in the bytes: narrow ones, the texts' lengths, wide ones, candidates, texts."""


class DamagedColumns(ValueError):
    """Bytes do not hold columns of tokens."""


def pack(batch: TokenBatch) -> bytes:
    """Packs a batch; the run's id is not part of it."""
    import numpy as np

    texts = [text.encode("utf-8", "surrogatepass") for text in batch.text]
    n = len(batch)
    lengths = np.array([len(text) for text in texts], np.int32)
    narrow = np.stack([*(_bits(getattr(batch, each.name)) for each in _NARROW), lengths])
    wide = [_bits(getattr(batch, each.name)).reshape(1, -1) for each in _WIDE]
    if batch.candidates is not None:
        wide.append(_bits(batch.candidates).reshape(1, -1))
    form = _FORMAT if batch.candidates is None else _WITH_CANDIDATES
    head = _HEAD.pack(form, n, batch.top_ids.shape[1], batch.extras.shape[1])
    return head + zlib.compress(b"".join((_planes(narrow), *map(_planes, wide), *texts)), _LEVEL)


def unpack(data: bytes, run: int = 0) -> TokenBatch:
    """Unpacks a batch that `pack` wrote.

    Args:
        data: The bytes.
        run: Id of the run for the batch.

    Raises:
        DamagedColumns: they are cut off, or something else.
    """
    try:
        form, n, top, extras = _HEAD.unpack_from(data)
        body = zlib.decompress(data[_HEAD.size :])
    except (struct.error, zlib.error) as error:
        raise DamagedColumns(f"the tokens cannot be read ({error})") from error
    if form not in (_FORMAT, _WITH_CANDIDATES):
        raise DamagedColumns(
            f"the tokens are in format {form}, but this version reads up to {_WITH_CANDIDATES}"
        )
    reader = _Reader(body, n)
    *narrow, lengths = reader.take(len(_NARROW) + 1)
    columns: dict[str, Any] = {
        each.name: row.view(f"<{each.dtype}") for each, row in zip(_NARROW, narrow, strict=True)
    }
    for each in _WIDE:
        if each.kind == "extras":
            columns[each.name] = reader.wide(extras).view(f"<{each.dtype}")
        else:
            columns[each.name] = _fit(reader.wide(top).view(f"<{each.dtype}"), each.empty)
    if form == _WITH_CANDIDATES:
        candidates = reader.wide(2 * top * extras).view("<f4").reshape(-1, top)
        columns["candidates"] = _fit(candidates, _CANDIDATES.empty).reshape(n, *_CANDIDATES.shape(extras))
    return TokenBatch(run=run, text=reader.texts(lengths.tolist()), **columns)


def join(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Joins batches of the same run, at least one, in their order."""
    import numpy as np

    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {
        each.name: np.concatenate([getattr(batch, each.name) for batch in batches])
        for each in (*_NARROW, *_WIDE)
    }
    candidates = [batch.candidates for batch in batches if batch.candidates is not None]
    if len(candidates) == len(batches):
        columns["candidates"] = np.concatenate(candidates)
    text = tuple(text for batch in batches for text in batch.text)
    return TokenBatch(run=batches[0].run, text=text, **columns)


def _bits(column: NDArray[Any]) -> NDArray[Any]:
    """Views numbers as 32-bit patterns."""
    import numpy as np

    kind = "<i4" if column.dtype.kind == "i" else "<f4"
    return np.ascontiguousarray(column, kind).view("<i4")


def _planes(rows: NDArray[Any]) -> bytes:
    """Writes row by row, and of each row first the lowest bytes of all its numbers, at last the highest."""
    import numpy as np

    height, width = rows.shape
    return rows.view(np.uint8).reshape(height, width, 4).transpose(0, 2, 1).tobytes()


def _fit(wide: NDArray[Any], empty: float) -> NDArray[Any]:
    """Cuts or fills columns to as many alternatives as this version records."""
    import numpy as np

    if wide.shape[1] == TOP:
        return wide
    fitted = np.full((len(wide), TOP), empty, wide.dtype)
    shared = min(wide.shape[1], TOP)
    fitted[:, :shared] = wide[:, :shared]
    return fitted


class _Reader:
    """Takes one column after the other from unpacked bytes."""

    def __init__(self, body: bytes, n: int) -> None:
        self._body = body
        self._n = n
        self._at = 0

    def take(self, height: int, width: int | None = None) -> NDArray[Any]:
        """Reads rows that `_planes` wrote: int32 `[height, width]`, or `[height, n]` without a width."""
        import numpy as np

        width = self._n if width is None else width
        size = 4 * height * width
        if self._at + size > len(self._body):
            raise DamagedColumns("the tokens are cut off")
        planes = np.frombuffer(self._body, np.uint8, size, self._at).reshape(height, 4, width)
        self._at += size
        rows: NDArray[np.generic] = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<i4")
        return rows.reshape(height, width)

    def wide(self, width: int) -> NDArray[Any]:
        """Reads a wide column: int32 `[n, width]`."""
        return self.take(1, self._n * width).reshape(self._n, width)

    def texts(self, lengths: Sequence[int]) -> tuple[str, ...]:
        """Reads texts of so many bytes each, which come last."""
        texts = []
        for length in lengths:
            raw = self._body[self._at : self._at + length]
            texts.append(raw.decode("utf-8", "surrogatepass"))
            self._at += length
        return tuple(texts)
