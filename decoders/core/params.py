"""Defines parameters: numbers that a user turns, and their table on the device."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class ParamError(ValueError):
    """Refuses a parameter value that cannot be used; names the parameter and its range.

    An `init` or `constants` may raise it about a text that it cannot use.

    Args:
        message: One sentence.
        field: The parameter's name, for the face that shows the message beside it.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def fixed(name: str) -> ParamError:
    """Builds the error of a parameter that a running generation cannot change."""
    return ParamError(f"{name} is fixed while a run goes on; it applies to the next run.")


@dataclass(frozen=True, slots=True)
class Param:
    """Declares one number that a user can turn, once for sidebar, command line, HTTP and docs.

    Every value is a float on the device. Integers are whole floats, a choice is the index into
    `choices`, a switch is 0 or 1 (`choices=("off", "on")`).
    """

    name: str
    """Identifier; unique within a strategy's chain, and the name in config.toml and on the command line."""
    default: float
    low: float
    high: float
    help: str
    """One line: the effect of turning it up."""
    step: float = 0.05
    """One press of an arrow key."""
    integer: bool = False
    choices: tuple[str, ...] = ()
    low_open: bool = False
    """True where `low` itself is excluded."""
    live: bool = True
    """True where a running generation can take a new value; otherwise it applies to the next run."""
    neutral: float | None = None
    """The value at which it does nothing, if there is one."""
    label: str = ""
    """Short name for narrow sidebars; defaults to `name` with spaces."""
    greedy: float | None = None
    """The value that leaves the likeliest token alone, if there is one: the temperature is then 0."""

    @classmethod
    def choice(
        cls, name: str, choices: tuple[str, ...], help: str, default: int = 0, live: bool = True
    ) -> Param:
        """Declares one of several words; the first is the default unless another is named."""
        return cls(name, default, 0, len(choices) - 1, help, integer=True, choices=choices, live=live)

    @classmethod
    def share(cls, name: str, default: float, help: str, **options: Any) -> Param:
        """Declares a number from 0 to 1 that turns by hundredths."""
        return cls(name, default, 0.0, 1.0, help, step=0.01, **options)

    @property
    def title(self) -> str:
        """The name for readers: `label`, or `name` with spaces."""
        return self.label or self.name.replace("_", " ")

    @property
    def default_text(self) -> str:
        """The default as the user reads it."""
        return self.text(self.default)

    def limits(self) -> str:
        """Writes the allowed values in words, as error messages and help show them."""
        if self.choices:
            return " | ".join(self.choices)
        kind = "a whole number" if self.integer else "a number"
        bound = "above" if self.low_open else "from"
        return f"{kind} {bound} {self.text(self.low)} to {self.text(self.high)}"

    def parse(self, value: object) -> float:
        """Reads the device's float from a user's input or a config's value.

        Raises:
            ParamError: naming the parameter, the value and the range.
        """
        if self.choices:
            if isinstance(value, bool) and self.choices == ("off", "on"):
                return float(value)
            if isinstance(value, str) and value.strip() in self.choices:
                return float(self.choices.index(value.strip()))
            if isinstance(value, int | float) and value in range(len(self.choices)):
                return float(value)
            raise ParamError(f"{self.name} is {value!r}, but must be {self.limits()}.")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        whole = not self.integer or number == int(number) if isfinite(number) else False
        low_ok = number > self.low if self.low_open else number >= self.low
        if not (whole and low_ok and number <= self.high) or isinstance(value, bool):
            shown = value if isinstance(value, int | float) else repr(value)
            raise ParamError(f"{self.name} is {shown}, but must be {self.limits()}.")
        return number

    def parse_live(self, value: object) -> float:
        """Reads a value that a running generation is to take.

        Raises:
            ParamError: as `parse`, or the parameter is fixed for a run.
        """
        number = self.parse(value)
        if not self.live:
            raise fixed(self.name)
        return number

    def text(self, value: float) -> str:
        """Writes a value as the user reads it."""
        if self.choices:
            return self.choices[int(value)]
        if self.integer or value == int(value):
            return str(int(value))
        return f"{value:.4g}"


class Params(dict[str, "Tensor"]):
    """Views a run's parameter table on the device: `p["top_p"]` is float32 `[R, 1]`, ready to broadcast.

    The views alias the table (float32 `[P, R]`), so a refresh of the table is seen without rebuilding them.
    """

    left_out: frozenset[int] = frozenset()
    """Numbers of the links that a step leaves out, because the host holds them at their neutral values."""

    def __init__(self, names: Sequence[str], table: Tensor) -> None:
        super().__init__((name, table[i].unsqueeze(-1)) for i, name in enumerate(names))
        self.table = table

    def rename(self, names: Mapping[str, str]) -> Params:
        """Gives the same views with some more names: `{"top_k": "top_k_2"}` reads `top_k_2` as `top_k`."""
        view = Params((), self.table)
        view.update(self)
        view.update((name, self[other]) for name, other in names.items())
        return view

    @property
    def is_on_host(self) -> bool:
        """True where `is_neutral` waits for no device."""
        return self.table.device.type == "cpu"

    def is_neutral(self, param: Param) -> bool:
        """Tells whether a parameter has, in all rows, the value at which it does nothing.

        Looks at the table, which on an accelerator is a wait: for steps on a CPU.
        """
        return param.neutral is not None and bool((self[param.name] == param.neutral).all())


class KnownParams(Params):
    """Views a table on a device whose values the host knows: no stage that does nothing has to run there.

    Args:
        values: By name, the same in all rows.
        rows: Number of rows `R`.
        device: Device of the table.
    """

    def __init__(self, values: Mapping[str, float], rows: int, device: str) -> None:
        import torch

        column = torch.tensor(list(values.values()), dtype=torch.float32).to(device, non_blocking=True)
        super().__init__(list(values), column[:, None].expand(-1, rows))
        self._values = values

    @property
    def is_on_host(self) -> bool:
        """Says so."""
        return True

    def is_neutral(self, param: Param) -> bool:
        """Tells whether the host's value is the neutral one."""
        return self._values[param.name] == param.neutral
