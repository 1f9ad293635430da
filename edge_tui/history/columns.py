"""Compresses columns of tokens for SQLite: about 170 bytes a token with 20 alternatives of two distributions.

Numbers are little-endian and split into their bytes' planes, which is what makes them compressible: the
high bytes of neighbouring log-probabilities are alike, the low ones are noise. Nothing is rounded.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import TokenBatch
from edge_tui.engine.token_fields import TOKEN_FIELDS, TOP, token_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_FORMAT = 1
_WITH_CANDIDATES = 2
"""The same with candidates."""
_WHOLE = 2
"""Is added to both; without it the columns are lacking that older versions did not record."""
_HEAD = struct.Struct("<BIHH")
"""Format, records, alternatives, extra columns."""
_LEVEL = 1
"""Of compression: 3 µs a token; the next levels gain 5 % and take twice as long."""

_NARROW = (*token_fields("position", "number", dtype="i4"), *token_fields("number", dtype="f4"))
_WIDE = (
    *token_fields("alternatives", dtype="i4"),
    *token_fields("alternatives", dtype="f4"),
    *token_fields("extras", "candidates"),
)
"""The order of the columns in the bytes: narrow ones, the texts' lengths, wide ones; last the texts."""


class DamagedColumns(ValueError):
    """Reports bytes that do not hold columns of tokens."""


def pack(batch: TokenBatch) -> bytes:
    """Packs a batch; the run's id is not part of it."""
    import numpy as np

    texts = [text.encode("utf-8", "surrogatepass") for text in batch.text]
    lengths = np.array([len(text) for text in texts], np.int32)
    narrow = [getattr(batch, each.name) for each in _NARROW]
    wide = [column for each in _WIDE if (column := getattr(batch, each.name)) is not None]
    form = _WHOLE + (_FORMAT if batch.candidates is None else _WITH_CANDIDATES)
    head = _HEAD.pack(form, len(batch), batch.top_ids.shape[1], batch.extras.shape[1])
    return head + zlib.compress(b"".join((*map(_planes, (*narrow, lengths, *wide)), *texts)), _LEVEL)


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
    newest = _WHOLE + _WITH_CANDIDATES
    if not _FORMAT <= form <= newest:
        raise DamagedColumns(f"the tokens are in format {form}, but this version reads up to {newest}")
    narrow, wide = (
        [each for each in fields if form > _WHOLE or not each.added] for fields in (_NARROW, _WIDE)
    )
    reader = _Reader(body)
    columns: dict[str, Any] = {each.name: reader.take(each.dtype, n) for each in narrow}
    lengths = reader.take("i4", n)
    shapes = {"alternatives": (n, top), "extras": (n, extras), "candidates": (n, extras, 2, top)}
    for each in wide:
        if each.kind != "candidates" or form in (_WITH_CANDIDATES, newest):
            column = reader.take(each.dtype, *shapes[each.kind])
            columns[each.name] = column if each.kind == "extras" else _fit(column, each.empty)
    return TokenBatch(run=run, text=reader.texts(lengths.tolist()), **columns)


def join(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Joins batches of the same run, at least one, in their order."""
    import numpy as np

    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {}
    for each in TOKEN_FIELDS:
        parts = [column for batch in batches if (column := getattr(batch, each.name)) is not None]
        if len(parts) == len(batches):
            columns[each.name] = np.concatenate(parts)
    text = tuple(text for batch in batches for text in batch.text)
    return TokenBatch(run=batches[0].run, text=text, **columns)


def token_ids(batches: Iterable[TokenBatch]) -> list[int]:
    """Lists the ids that were chosen or recorded as alternatives, each once, in their order."""
    import numpy as np

    columns = [column for each in batches for column in (each.id, each.top_ids, each.final_ids)]
    ids = np.unique(np.concatenate(columns, axis=None)) if columns else np.zeros(0, np.int32)
    listed: list[int] = ids[ids >= 0].tolist()
    return listed


def _planes(column: NDArray[Any]) -> bytes:
    """Writes the lowest bytes of all numbers first, the highest last."""
    import numpy as np

    kind = "<i4" if column.dtype.kind == "i" else "<f4"
    return np.ascontiguousarray(column, kind).reshape(-1, 1).view(np.uint8).T.tobytes()


def _fit(column: NDArray[Any], empty: float) -> NDArray[Any]:
    """Cuts or fills a column to as many alternatives as this version records."""
    import numpy as np

    if column.shape[-1] == TOP:
        return column
    fitted = np.full((*column.shape[:-1], TOP), empty, column.dtype)
    shared = min(column.shape[-1], TOP)
    fitted[..., :shared] = column[..., :shared]
    return fitted


class _Reader:
    """Takes one column after the other from unpacked bytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, dtype: str, *shape: int) -> NDArray[Any]:
        """Reads a column of this shape that `_planes` wrote."""
        import numpy as np

        size = 4 * math.prod(shape)
        if self._at + size > len(self._body):
            raise DamagedColumns("the tokens are cut off")
        planes = np.frombuffer(self._body, np.uint8, size, self._at).reshape(4, size // 4)
        self._at += size
        column: NDArray[Any] = np.ascontiguousarray(planes.T).view(f"<{dtype}").reshape(shape)
        return column

    def texts(self, lengths: Sequence[int]) -> tuple[str, ...]:
        """Reads texts of so many bytes each, which come last."""
        texts = []
        for length in lengths:
            raw = self._body[self._at : self._at + length]
            texts.append(raw.decode("utf-8", "surrogatepass"))
            self._at += length
        return tuple(texts)
