"""Columns of tokens as bytes: about 170 a token with twenty alternatives of two distributions each.

Numbers are little-endian and split into their bytes' planes, which is what makes them compressible: the
high bytes of neighbouring log-probabilities are alike, the low ones are noise. Nothing is rounded.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import TOP, TokenBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_FORMAT = 1
_WITH_CANDIDATES = 2
"""The same with what the strategy tells of alternatives."""
_HEAD = struct.Struct("<BIHH")
"""Format, records, alternatives, extra columns."""
_LEVEL = 1
"""Of compression: 3 µs a token; the next levels gain 5 % and take twice as long."""

INTS = ("step", "row", "parent", "id", "rank", "version")
FLOATS = ("raw_logp", "final_logp", "entropy")
WIDE_INTS = ("top_ids", "final_ids")
WIDE_FLOATS = ("top_logp", "final_top_logp")


class DamagedColumns(ValueError):
    """Bytes that are no columns of tokens."""


def pack(batch: TokenBatch) -> bytes:
    """A batch as bytes; the run's id is not part of them."""
    import numpy as np

    texts = [text.encode("utf-8", "surrogatepass") for text in batch.text]
    planes = [_planes(getattr(batch, name), "<i4") for name in (*INTS, *WIDE_INTS)]
    planes += [_planes(getattr(batch, name), "<f4") for name in (*FLOATS, *WIDE_FLOATS, "extras")]
    if batch.candidates is not None:
        planes.append(_planes(batch.candidates, "<f4"))
    planes.append(_planes(np.array([len(text) for text in texts]), "<i4"))
    form = _FORMAT if batch.candidates is None else _WITH_CANDIDATES
    head = _HEAD.pack(form, len(batch), batch.top_ids.shape[1], batch.extras.shape[1])
    return head + zlib.compress(b"".join((*planes, *texts)), _LEVEL)


def unpack(data: bytes, run: int = 0) -> TokenBatch:
    """The batch that `pack` wrote.

    Args:
        data: The bytes.
        run: Id of the run that the batch is to belong to.

    Raises:
        DamagedColumns: they are cut off or were never such.
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
    columns: dict[str, Any] = {name: reader.take("<i4") for name in INTS}
    columns |= {name: _fit(reader.take("<i4", top), -1) for name in WIDE_INTS}
    columns |= {name: reader.take("<f4") for name in FLOATS}
    columns |= {name: _fit(reader.take("<f4", top), -float("inf")) for name in WIDE_FLOATS}
    columns["extras"] = reader.take("<f4", extras)
    if form == _WITH_CANDIDATES:
        told = reader.take("<f4", 2 * top * extras).reshape(-1, top)
        columns["candidates"] = _fit(told, float("nan")).reshape(n, extras, 2, TOP)
    return TokenBatch(run=run, text=reader.texts(), **columns)


def join(batches: Sequence[TokenBatch]) -> TokenBatch:
    """One batch of several of the same run, in their order; at least one."""
    import numpy as np

    if len(batches) == 1:
        return batches[0]
    names = (*INTS, *WIDE_INTS, *FLOATS, *WIDE_FLOATS, "extras")
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names
    }
    told = [batch.candidates for batch in batches if batch.candidates is not None]
    if len(told) == len(batches):
        columns["candidates"] = np.concatenate(told)
    text = tuple(text for batch in batches for text in batch.text)
    return TokenBatch(run=batches[0].run, text=text, **columns)


def _planes(column: NDArray[Any], kind: str) -> bytes:
    import numpy as np

    flat = np.ascontiguousarray(column, kind).reshape(-1)
    return flat.view(np.uint8).reshape(-1, 4).T.tobytes()


def _fit(wide: NDArray[Any], empty: float) -> NDArray[Any]:
    """As many alternatives as this version records: others are cut off or stay empty."""
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

    def take(self, kind: str, width: int | None = None) -> NDArray[Any]:
        """The next column, `[n]` or `[n, width]`."""
        import numpy as np

        size = 4 * self._n * (1 if width is None else width)
        if self._at + size > len(self._body):
            raise DamagedColumns("the tokens are cut off")
        planes = np.frombuffer(self._body, np.uint8, size, self._at)
        self._at += size
        values: NDArray[np.generic] = np.ascontiguousarray(planes.reshape(4, -1).T).view(kind).reshape(-1)
        return values if width is None else values.reshape(self._n, width)

    def texts(self) -> tuple[str, ...]:
        """What is left: the texts, after their lengths in bytes."""
        texts = []
        for length in self.take("<i4").tolist():
            raw = self._body[self._at : self._at + length]
            texts.append(raw.decode("utf-8", "surrogatepass"))
            self._at += length
        return tuple(texts)
