"""Recognises errors that mean a lack of memory, and releases what they hold."""

from __future__ import annotations

from collections.abc import Iterator

_WORDS = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
"""Words of torch's allocators, the system and cuBLAS for it: on a CPU torch raises a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error, or one that led to it, is a lack of memory."""
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or any(words in str(each).lower() for words in _WORDS)
        for each in _chain(error)
    )


def release(error: BaseException) -> None:
    """Drops the frames of an error and of those that led to it, which hold the tensors that did not fit."""
    for each in list(_chain(error)):
        each.__traceback__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
