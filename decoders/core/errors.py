"""Holds the errors of strategies, each with the file and line at fault. Loads no torch."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Problem:
    """Holds an error of a strategy with its place.

    Attributes:
        source: The file, or the entry point.
        line: Line of the file, 0 where unknown.
        sentence: The error, without the place.
    """

    source: str
    line: int
    sentence: str

    def __str__(self) -> str:
        place = f"{self.source}, line {self.line}" if self.line else self.source
        return f"{place}: {self.sentence}"

    @property
    def short(self) -> str:
        """The same with the file's name in place of its path."""
        name = Path(self.source).name
        return f"{name}, line {self.line}: {self.sentence}" if self.line else f"{name}: {self.sentence}"


class StrategyError(RuntimeError):
    """Reports that a strategy breaks its contract.

    Attributes:
        problem: The file, the line, and a sentence that names the stage.
    """

    def __init__(self, sentence: str, at: object = None, place: tuple[str, int] | None = None) -> None:
        """Builds the error.

        Args:
            sentence: Names the stage, what it did and what it must do.
            at: The function or class at fault, whose file and line are looked up.
            place: File and line where they are known better.
        """
        self.problem = Problem(*(place or place_of(at)), sentence)
        super().__init__(self.problem.short)


def fault(at: type | Callable[..., object], does: str, place: tuple[str, int] | None = None) -> StrategyError:
    """Builds the error of a class or method that breaks the contract: its name, and what it does."""
    return StrategyError(f"{name_of(at)} {does}", at, place)


def name_of(at: type | Callable[..., object]) -> str:
    """Writes `Class` or `Class.method`, with the class of the object that a method was called on."""
    if isinstance(at, type):
        return at.__name__
    owner = getattr(at, "__self__", None)
    return f"{type(owner).__name__}.{at.__name__}" if owner is not None else at.__qualname__


def place_of(at: object) -> tuple[str, int]:
    """Finds the file and first line of a function, method or class; "" and 0 where they are unknown."""
    code = getattr(inspect.unwrap(at), "__code__", None) if callable(at) else None
    if code is not None:
        return code.co_filename, code.co_firstlineno
    kind = at if isinstance(at, type) else type(at)
    try:
        return file_of(kind), inspect.getsourcelines(kind)[1]
    except Exception:  # the file's text may be newer than the class: without it, or no Python
        return file_of(kind), 0


def file_of(kind: type) -> str:
    """Finds the file that a class was read from, without reading it; "" where it is unknown."""
    try:
        return inspect.getsourcefile(kind) or ""
    except (OSError, TypeError):
        return ""


def problem_of(error: BaseException, is_strategy: Callable[[str], bool]) -> Problem | None:
    """Finds the problem behind an error: its own, or the deepest line of its traceback in a strategy's file.

    Args:
        error: An exception that was raised while a strategy decoded.
        is_strategy: Tells of a file's path whether strategies are read from it.

    Returns:
        None where no strategy is at fault.
    """
    if isinstance(error, StrategyError):
        return error.problem
    frames = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_strategy(frame.f_code.co_filename)
    ]
    if not frames:
        return None
    code, line = frames[-1]
    lines = str(error).strip().splitlines()
    message = f": {lines[0].rstrip('.')}" if lines else ""
    return Problem(code.co_filename, line, f"{code.co_qualname} raised {type(error).__name__}{message}.")
