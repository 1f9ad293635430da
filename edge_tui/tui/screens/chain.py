"""Edits the chain of the chosen strategy: moves, adds, removes and mutes its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content
from textual.widgets.option_list import Option

from edge_tui import decoders
from edge_tui.decoders.registry.description import summary_of, title_of
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.services import services
from edge_tui.tui.widgets.choice_list import ChoiceList
from edge_tui.tui.widgets.fitted_text import FittedText
from edge_tui.tui.widgets.line_panel import pad
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.widget import Widget
    from textual.widgets import OptionList

    from edge_tui.tui.chain_editor import ChainEditor, Line

_TITLE = 22
"""Cells of a stage's title."""


class ChainScreen(Dialog[None]):
    """Lists the stages of a chain, first to last; each change holds at once.

    Args:
        editor: Changes the chain.
    """

    BINDINGS = bindings("chain")
    heading = "chain"
    hint = "shift ↑↓ move · a add · x remove · space mute · esc leave"

    def __init__(self, editor: ChainEditor) -> None:
        super().__init__()
        self._editor = editor
        self._message = ""
        self.options = ChoiceList(markup=False)
        self.about = FittedText(classes="hint")
        """The chain as it is typed, and what stood against the last change."""

    def content(self) -> Iterable[Widget]:
        """Lists the stages and the lines below them."""
        return self.options, self.about

    def on_mount(self) -> None:
        """Lists the chain, the cursor on its first stage."""
        self.show_lines(0)

    def on_resize(self, event: events.Resize) -> None:
        """Lists the chain for the new width."""
        self.call_after_refresh(self.show_lines, self._index)

    @property
    def _index(self) -> int:
        return self.options.highlighted or 0

    def show_lines(self, index: int) -> None:
        """Lists the chain again, with the cursor on a line."""
        lines = self._editor.lines
        room = max((self.options.size.width or 68) - 2, _TITLE)
        self.options.clear_options()
        self.options.add_options([Option(self._content(line, room)) for line in lines])
        self.options.highlighted = min(max(index, 0), len(lines) - 1) if lines else None
        self._explain()

    @staticmethod
    def _content(line: Line, room: int) -> Content:
        """Writes title, values and state of one stage."""
        colour = "$text-muted" if line.is_off else "$primary bold" if line.link is None else "bold"
        state = "off" if line.is_off else "" if line.place is not None or line.link is None else "fixed"
        values = clip(one_line(line.values), max(room - _TITLE - cell_len(state) - 1, 0))
        return Content.assemble(
            (pad(clip(one_line(line.title), _TITLE - 1), _TITLE), colour),
            (pad(values, max(room - _TITLE - cell_len(state), 0)), "$text-muted"),
            (state, "$warning" if line.is_off else "$text-muted"),
        )

    def _explain(self) -> None:
        """Writes the chain as it is typed, with its keys for orders, and the last sentence."""
        self.about.update(
            Content.assemble(
                (f"{one_line(self._editor.name)}\n", "$primary"),
                ("t transformers' order · l llama.cpp's order\n", "$text-muted"),
                (one_line(self._message), "$warning"),
            )
        )

    def _apply(self, sentence: str, index: int) -> None:
        """Shows the chain after a change, or the sentence that stands against it."""
        self._message = sentence
        self.show_lines(index)
        if sentence:
            self.app.bell()

    def action_move(self, step: int) -> None:
        """Moves the stage under the cursor up or down."""
        index = self._index
        sentence = self._editor.move(index, step)
        self._apply(sentence, index if sentence else index + step)

    def action_add(self) -> None:
        """Asks for a stage, and adds it behind the one under the cursor."""

        def add(name: str | None) -> None:
            if name is not None:
                index = self._index
                place = self._editor.place_behind(index, name)
                if not (sentence := self._editor.add(place, name)):
                    places = [line.place for line in self._editor.lines]
                    index = places.index(place)
                self._apply(sentence, index)

        self.app.push_screen(StagesScreen(), add)

    def action_remove(self) -> None:
        """Removes the stage under the cursor."""
        self._apply(self._editor.remove(self._index), self._index)

    def action_mute(self) -> None:
        """Mutes the stage under the cursor, or restores its values."""
        self._apply(self._editor.toggle(self._index), self._index)

    def action_put_in_order(self, program: str) -> None:
        """Sorts the chain as transformers or llama.cpp (`llama_cpp`, as ids of actions go) has it."""
        self._apply(self._editor.put_in_order(program.replace("_", ".")), self._index)

    def action_show_help(self) -> None:
        """Opens the help."""
        services(self).action_show_help()


class StagesScreen(FilterListScreen[str]):
    """Returns the name of a stage."""

    heading = "add a stage"

    def items(self) -> list[Item]:
        """Lists the stages that a chain may have."""
        found = []
        for stage in decoders.current().stages():
            title, summary = one_line(title_of(stage)), one_line(summary_of(stage))
            content = Content.assemble(
                (f"{clip(title, _TITLE - 1):<{_TITLE}}", "bold"), (summary, "$text-muted")
            )
            found.append(Item(stage.name, f"{stage.name} {title}", content, help=summary))
        return found

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Says what the stage under the cursor does, and the values that it has."""
        stage = decoders.current().stage(event.option_id or "")
        params = ", ".join(param.title for param in stage.params) or "none"
        self.about.update(Content(one_line(f"{summary_of(stage)} Parameters: {params}.")))
