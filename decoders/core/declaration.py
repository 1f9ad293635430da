"""Declares a strategy to lists, faces and the engine: its name, and what its class can do. Loads no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

Kind: TypeAlias = Literal["sample", "search", "propose"]
"""The way a strategy decodes: independent rows, rows that compete for one answer, or checked proposals."""

OPENAI_PARAMS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Parameters that requests of OpenAI's API carry, with the value at which each does nothing."""

_LISTING = ("name", "title", "summary", "rank")
_CAPABILITIES = ("openai", "takes_argmax")


class Declaration:
    """Holds the class attributes that filters and decoders share.

    The capabilities are facts of one class. A subclass may decode otherwise, so it inherits none of them.
    """

    name: ClassVar[str]
    """Registry name, as in config.toml: lower case, underscores."""
    title: ClassVar[str]
    """As the sidebar shows it."""
    summary: ClassVar[str]
    """One line for lists and help."""
    rank: ClassVar[int] = 100
    """Position in lists; the first nine get the digit keys."""
    openai: ClassVar[bool] = False
    """True where OpenAI's API can express it, with those of its parameters that are `OPENAI_PARAMS`."""
    takes_argmax: ClassVar[bool] = False
    """True where it always takes the likeliest token, as a temperature of 0 does; then no seed matters."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in _CAPABILITIES:
            if name not in vars(cls):
                setattr(cls, name, False)

    def declare_as(self, other: Declaration) -> None:
        """Copies another declaration onto this object, which stands for it."""
        for name in (*_LISTING, *_CAPABILITIES):
            setattr(self, name, getattr(other, name))
