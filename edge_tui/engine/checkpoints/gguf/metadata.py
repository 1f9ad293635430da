"""Reads the metadata of one architecture out of a GGUF header, by type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.gguf.header import Array
from edge_tui.engine.checkpoints.weight_files import CheckpointError
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from edge_tui.engine.checkpoints.gguf.header import Header

_LARGEST = 2**31 - 1


class Metadata:
    """Reads typed values of one architecture out of a header's metadata.

    Args:
        name: As the user named the model.
        header: The first file's.
        prefix: Of the architecture's keys, "llama".
    """

    def __init__(self, name: str, header: Header, prefix: str) -> None:
        self._name, self._header, self._prefix = name, header, prefix

    def whole(self, key: str, default: int | None = None) -> int:
        """Returns a positive whole number; of an array the one number that all layers share.

        Raises:
            CheckpointError: it is missing with no default, or no such number.
        """
        value: object = self._value(key)
        if isinstance(value, Array):
            values = self._header.read_array(f"{self._prefix}.{key}")
            value = values[0] if len(set(values)) == 1 else "a different one for each layer"
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST:
            raise self._refusal(key, value)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """Returns a positive number.

        Raises:
            CheckpointError: it is missing with no default, or no such number.
        """
        value = self._value(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self._refusal(key, value)
        return float(value)

    def has(self, key: str) -> bool:
        """Tells whether the key is there and not 0."""
        return bool(self._value(key))

    def denies(self, key: str) -> bool:
        """Tells whether the key is there and false."""
        return self._value(key) is False

    def text(self, key: str) -> str:
        """Returns a string, "" if there is none."""
        value = self._value(key)
        return value if isinstance(value, str) else ""

    def keys(self, beginning: str) -> set[str]:
        """Returns the rest of each key that begins so."""
        whole = f"{self._prefix}.{beginning}"
        return {key.removeprefix(whole) for key in self._header.metadata if key.startswith(whole)}

    def _value(self, key: str) -> object:
        return self._header.metadata.get(f"{self._prefix}.{key}")

    def _refusal(self, key: str, value: object) -> CheckpointError:
        said = "is missing" if value is None else f"is {one_line(str(value))[:60]}"
        return CheckpointError(
            f"{self._name} cannot be loaded: its {self._prefix}.{key} {said}; take another file."
        )
