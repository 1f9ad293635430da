"""Edits the chain of the chosen strategy, or the one around a search. No widget in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.base import TextParam
from edge_tui.decoders.registry.chain_text import AROUND, write_chain
from edge_tui.decoders.registry.description import acting_links, is_chain, is_fixed, is_off, title_of
from edge_tui.decoders.registry.orders import put_in_order
from edge_tui.tui.run_settings import YOU, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.decoders.base import AnyParam, Stage, Value
    from edge_tui.decoders.core.chain import Link
    from edge_tui.tui.run_params import RunParams


@dataclass(frozen=True, slots=True)
class Line:
    """Describes one stage of the chain, or the strategy that stages stand around.

    Attributes:
        title: Name as shown.
        link: The stage; None for the strategy itself.
        place: Its place among the stages that can be moved; None where it belongs to the strategy.
        values: Its parameters as shown.
        is_off: True where they are neutral.
    """

    title: str
    link: Link | None
    place: int | None
    values: str = ""
    is_off: bool = False


def lines_of(run_params: RunParams) -> list[Line]:
    """Lists the chain of the chosen strategy, first to last."""
    decoder = run_params.decoder
    values = {param.name: run_params.value(param)[0] for param in decoder.params}
    before, after = acting_links(decoder, values)
    whole = is_chain(decoder)
    movable = (*before, *after) if whole else decoder.links_around

    def line(link: Link) -> Line:
        place = next((i for i, each in enumerate(movable) if each is link), None)
        number = f" #{link.number}" if link.number > 1 else ""
        shown = " · ".join(f"{param.title} {_text(param, values[param.name])}" for param in link.params)
        return Line(f"{title_of(link.stage)}{number}", link, place, shown, is_off(link, values))

    inner = [] if whole else [Line(decoder.title.partition(AROUND)[0], None, None)]
    return [*map(line, before), *inner, *map(line, after)]


def _text(param: AnyParam, value: Any) -> str:
    return param.text(value)


class ChainEditor:
    """Changes the chain of the chosen strategy. Each method returns a sentence where it cannot, else "".

    Args:
        run_params: The chosen strategy and the values.
        choose: Chooses a strategy by its name; returns the reason against it, or "".
        send: Sends a parameter's value to the run in progress.
    """

    def __init__(
        self, run_params: RunParams, choose: Callable[[str], str], send: Callable[[str], None]
    ) -> None:
        self._run_params, self._choose, self._send = run_params, choose, send
        self._muted: dict[AnyParam, tuple[Value, bool]] = {}
        """Values that muting has replaced, and True where they were the user's own."""

    @property
    def lines(self) -> list[Line]:
        """The chain, first to last."""
        return lines_of(self._run_params)

    @property
    def name(self) -> str:
        """The strategy's name, which is the chain as it is typed."""
        return self._run_params.decoder.name

    @property
    def _stages(self) -> list[str]:
        """Names of the stages that can be moved, without numbers."""
        names = {line.place: line.link.stage.name for line in self.lines if line.link is not None}
        return [names[place] for place in sorted(place for place in names if place is not None)]

    def move(self, index: int, step: int) -> str:
        """Moves the stage of a line by one place up (−1) or down."""
        line = self.lines[index]
        if line.place is None:
            return self._belongs(line)
        stages, other = self._stages, line.place + step
        if not 0 <= other < len(stages):
            return f"{line.title} is the {'first' if step < 0 else 'last'} stage."
        stages[line.place], stages[other] = stages[other], stages[line.place]
        return self._take(stages)

    def place_behind(self, index: int, name: str) -> int:
        """Finds the place of a stage that is added behind a line; one that selects stays the last."""
        stages, line, known = self._stages, self.lines[index], _known()
        at = len(stages) if line.place is None or known[name].last else line.place + 1
        return at - 1 if at and known[stages[at - 1]].last else at

    def add(self, place: int, name: str) -> str:
        """Adds a stage at a place."""
        stages = self._stages
        return self._take([*stages[:place], name, *stages[place:]])

    def remove(self, index: int) -> str:
        """Removes the stage of a line."""
        line = self.lines[index]
        if line.place is None:
            return self._belongs(line)
        stages = self._stages
        del stages[line.place]
        return self._take(stages)

    def put_in_order(self, program: str) -> str:
        """Sorts the stages into the order of transformers or llama.cpp."""
        stages = self._stages
        ordered = put_in_order(stages, program, _known())
        return self._take(ordered) if ordered != stages else f"The chain is in the order of {program}."

    def toggle(self, index: int) -> str:
        """Mutes the stage of a line, by neutral values of its parameters; restores them where it is muted."""
        line, run_params = self.lines[index], self._run_params
        if line.link is None:
            return f"{line.title} is the strategy itself."
        params = [param for param in line.link.params if param.neutral is not None]
        if not params:
            return f"{line.title} has no value at which it does nothing, so it cannot be muted: x removes it."
        if line.is_off and not any(param in self._muted for param in params):
            return f"{line.title} does nothing with its values: give it others in the sidebar (e)."
        for param in params:
            if line.is_off:
                self._restore(param)
            else:
                value, source = run_params.value(param)
                self._muted[param] = value, source in (YOU, "mode")
                run_params.set(param.name, _typed(param, param.neutral))
            self._send(param.name)
        return "It holds from the next run on." if is_fixed(line.link) else ""

    def _restore(self, param: AnyParam) -> None:
        """Gives a parameter the value back that muting has replaced."""
        if param not in self._muted:
            return
        value, own = self._muted.pop(param)
        self._run_params.reset(param.name)
        if own:
            self._run_params.set(param.name, _typed(param, value))

    def _belongs(self, line: Line) -> str:
        name = self._run_params.decoder.title.partition(AROUND)[0]
        return f"{line.title} belongs to {name} and stays in its place."

    def _take(self, stages: list[str]) -> str:
        """Chooses the strategy of these stages; the values stay."""
        decoder = self._run_params.decoder
        if not is_chain(decoder):
            inner = decoder.name.partition(AROUND)[0]
            return self._choose(f"{inner}{AROUND}{write_chain(stages)}" if stages else inner)
        if len(stages) == 1 and stages[0] in {each.name for each in decoders.strategies()}:
            return f"A chain has two stages or more; {stages[0]} alone is a strategy of its own (s)."
        return self._choose(write_chain(stages)) if stages else "A chain has one stage at least."


def _known() -> dict[str, Stage]:
    return {stage.name: stage for stage in decoders.current().stages()}


def _typed(param: AnyParam, value: Any) -> Any:
    """Writes a value as `RunParams.set` takes it."""
    return write_text(value) if isinstance(param, TextParam) else value
