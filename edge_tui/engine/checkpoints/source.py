"""Defines what a model is loaded from: its configuration, its tensors, its tokenizer and its chat template.

`checkpoint.Checkpoint` is that source, for a folder in Hugging Face layout and for GGUF files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tokenizers import Tokenizer as FastTokenizer
    from torch import Tensor

    from edge_tui.engine.ops.code_groups import CodeGroups


class TensorReader(Protocol):
    """Reads the weights of one source by name."""

    nbytes: int
    """Bytes of all weights, to tell progress by."""

    def __contains__(self, name: str) -> bool: ...

    def names(self) -> list[str]:
        """Returns the names of all weights; scales of quantised ones are none."""

    def read(self, name: str) -> Tensor:
        """Reads a weight to the CPU, as it is stored; one that is stored quantised or packed as float32.

        Raises:
            WeightsError: it is missing or unreadable.
        """

    def read_codes(self, name: str, device: str) -> CodeGroups | None:
        """Reads a matrix to a device as codes in groups; None if it is not stored as such.

        Raises:
            WeightsError: it is missing or unreadable.
        """

    def close(self) -> None:
        """Unmaps the files."""


class CheckpointSource(Protocol):
    """Gives the loaders everything that belongs to one model."""

    @property
    def name(self) -> str:
        """The name as the user wrote it."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The keys and values of config.json."""

    @property
    def chat_template(self) -> str | None:
        """Jinja source, None if there is no template."""

    @property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """The keys and values of tokenizer_config.json."""

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-sequence id, if there is one."""

    @property
    def eos_token(self) -> str:
        """The token that ends a sequence, by its name; "" if none is named."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id that ends a sequence."""

    def open_tensors(self) -> TensorReader:
        """Opens the weight files.

        Raises:
            CheckpointError: one is missing.
            WeightsError: one is damaged.
        """

    def read_tokenizer(self) -> FastTokenizer:
        """Reads the tokenizer.

        Raises:
            CheckpointError: there is none, or it is broken.
        """

    def class_tokens(self) -> Mapping[str, str]:
        """Returns the special tokens that only the tokenizer's class knows, by role."""
