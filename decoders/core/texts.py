"""Defines parameters that are text: banned words, a pattern, a negative prompt. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn, TypeAlias

from edge_tui.decoders.core.params import Param, ParamError, fixed

Text: TypeAlias = str | tuple[str, ...]
"""The value of a parameter that is text, or a list of texts."""
Value: TypeAlias = float | str | tuple[str, ...]
"""The value of any parameter."""

MOST_CHARACTERS = 10_000
"""Characters of one value; of a list, those of all its texts."""
_SHOWN = 40
"""Characters of a value that an error quotes."""


@dataclass(frozen=True, slots=True)
class TextParam:
    """Declares one text, or list of texts, that a user can set: once for every face, as `Param` does.

    It never lies on the device. `Env.texts` has its value, and `constants` or `init` makes tensors of it. It
    is fixed while a run goes on: other prompts, shapes and states come of it, and the record of a token, from
    which a run is gone on with or explained, names numbers alone.
    """

    name: str
    """As `Param.name`; unique among both kinds."""
    default: Text = ""
    help: str = ""
    """One line: the effect of the text."""
    many: bool = False
    """True where it is a list of texts, given as a tuple."""
    live: ClassVar[bool] = False
    """As `Param.live`: no running generation takes a new value."""
    check: Callable[[str], object] | None = field(default=None, compare=False)
    """Called with each text that is not empty; whatever it raises refuses the text, with its message."""
    label: str = ""
    """As `Param.label`."""

    def __post_init__(self) -> None:
        if self.many and isinstance(self.default, str):
            object.__setattr__(self, "default", (self.default,) if self.default else ())

    @property
    def title(self) -> str:
        """The name for readers: `label`, or `name` with spaces."""
        return self.label or self.name.replace("_", " ")

    @property
    def neutral(self) -> Text:
        """The value at which it does nothing: no text."""
        return () if self.many else ""

    @property
    def default_text(self) -> str:
        """The default as the user reads it."""
        return self.text(self.default)

    def limits(self) -> str:
        """Writes the allowed values in words, as error messages and help show them."""
        return f"{'a list of texts' if self.many else 'a text'} of at most {MOST_CHARACTERS:,} characters"

    def parse(self, value: object) -> Text:
        """Reads a text, or for `many` a list of texts or a single one; empty ones in a list are left out.

        Raises:
            ParamError: naming the parameter, the value and what is allowed.
        """
        listed = value if self.many and isinstance(value, list | tuple) else (value,)
        found = tuple(str(each) for each in listed if isinstance(each, str))
        length = sum(map(len, found))
        if len(found) < len(listed) or length > MOST_CHARACTERS:
            size = f" with {length:,} characters" if length > MOST_CHARACTERS else ""
            raise ParamError(f"{self.name} is {_short(value)}{size}, but must be {self.limits()}.")
        for text in filter(None, found):
            self._check(text)
        return tuple(filter(None, found)) if self.many else found[0]

    def parse_live(self, value: object) -> NoReturn:
        """Refuses a value while a run goes on.

        Raises:
            ParamError: the value is none, or the parameter is fixed.
        """
        self.parse(value)
        raise fixed(self.name)

    def text(self, value: Text) -> str:
        """Writes a value on one line as the user reads it, several separated by " | "; "none" without any."""
        shown = value if isinstance(value, str) else " | ".join(value)
        return shown.replace("\n", "\\n") or "none"

    def _check(self, text: str) -> None:
        if self.check is None:
            return
        try:
            self.check(text)
        except ParamError:
            raise
        except (Exception, SystemExit) as error:  # a user's function may raise any
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            sentence = f"{self.name} is {_short(text)}, which cannot be used: {reason}."
            raise ParamError(sentence) from error


AnyParam: TypeAlias = Param | TextParam
"""A parameter of either kind."""


def numbers(params: Iterable[AnyParam]) -> tuple[Param, ...]:
    """Lists the parameters that are numbers, those of the device's table."""
    return tuple(param for param in params if isinstance(param, Param))


def texts(params: Iterable[AnyParam]) -> tuple[TextParam, ...]:
    """Lists the parameters that are text."""
    return tuple(param for param in params if isinstance(param, TextParam))


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
