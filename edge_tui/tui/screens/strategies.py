"""Searches the list of all strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.decoders.registry.description import GROUPS, group_of
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.widgets.strategy_list import DIGITS
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.widgets import Input, OptionList

    from edge_tui.decoders.base import Decoder


_TITLE = 19
"""Cells of a strategy's title."""


class StrategiesScreen(FilterListScreen[str]):
    """Returns the name of a strategy."""

    heading = "strategies"

    def __init__(
        self, decoders: Sequence[Decoder], chosen: str, refusals: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(chosen)
        self._refusals = refusals or {}
        self._decoders = {decoder.name: decoder for decoder in decoders}

    def items(self) -> list[Item]:
        """Lists the strategies by groups; refused ones are muted."""
        found = []
        numbered = enumerate(self._decoders.values(), 1)
        for index, decoder in sorted(numbered, key=lambda pair: GROUPS.index(group_of(pair[1]))):
            title = one_line(decoder.title)
            summary = one_line(decoder.summary)
            refused = decoder.name in self._refusals
            here = decoder.name == self._chosen
            content = Content.assemble(
                ("▸ " if here else "  ", "$primary"),
                (f"{'–' if refused else index} " if index <= DIGITS else "  ", "$text-muted"),
                (
                    f"{clip(title, _TITLE):<{_TITLE}}",
                    "$text-disabled" if refused else "$primary bold" if here else "bold",
                ),
                (f" {summary}", "$text-muted"),
            )
            group = group_of(decoder)
            found.append(
                Item(decoder.name, f"{decoder.name} {title} {summary} {group}", content, group=group)
            )
        return found

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Describes the strategy under the cursor, or why it is refused."""
        decoder = self._decoders[event.option_id or ""]
        roles = " and ".join(decoder.roles)
        params = ", ".join(param.title for param in decoder.params) or "none"
        needs = self._refusals.get(decoder.name) or f"Needs: {roles}. Parameters: {params}."
        self.about.update(sanitise(f"{decoder.summary}\n{needs}"))


class RivalsScreen(StrategiesScreen):
    """Returns the name of the other strategy of a duel; a digit chooses at once, as in the workbench."""

    heading = "duel: the other strategy"
    hint = "1-9 or type to filter · ↑↓ move · enter choose · esc leave"

    def on_input_changed(self, event: Input.Changed) -> None:
        """Chooses by a digit alone; filters by anything else."""
        names = list(self._decoders)
        if len(event.value) == 1 and event.value in "123456789" and int(event.value) <= len(names):
            event.stop()
            event.prevent_default()
            self.choose(names[int(event.value) - 1])
        else:
            super().on_input_changed(event)
