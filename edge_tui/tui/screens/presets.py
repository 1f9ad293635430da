"""Lists presets, and asks for the name of a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from edge_tui.config import presets
from edge_tui.config.precedence import value_text
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.widgets.field import Field
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget
    from textual.widgets import Input, OptionList

    from edge_tui.config.presets import Preset


_VALUE = 60
"""Cells of one value in the description of a preset."""


class PresetsScreen(FilterListScreen["Preset"]):
    """Returns a preset. The user's own can be deleted, and brought back until the list closes."""

    BINDINGS = bindings("presets")
    heading = "presets"
    hint = "enter take · ^x delete · esc leave"

    def __init__(self) -> None:
        super().__init__()
        found, self._problems = presets.load()
        self._presets = {preset.name: preset for preset in found}
        self._marked_for_delete: set[str] = set()

    def items(self) -> list[Item]:
        """Lists the presets."""
        return [self._item(preset) for preset in self._presets.values()]

    def _item(self, preset: Preset) -> Item:
        title = one_line(preset.title or preset.name)
        deleted = preset.name in self._marked_for_delete
        content = Content.assemble(
            (f"{title:<22}", "strike $text-muted" if deleted else "bold"),
            (f" {clip(one_line(preset.strategy), 12):<12}", "$primary"),
            (" yours " if preset.own else "       ", "$accent"),
            (one_line(preset.summary), "$text-muted"),
        )
        return Item(preset.name, f"{preset.name} {title} {preset.strategy} {preset.summary}", content)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Describes the values of the preset under the cursor."""
        preset = self._presets[event.option_id or ""]
        values = " · ".join(
            f"{name} {clip(value_text(value), _VALUE)}" for name, value in preset.parameters.items()
        )
        parts = [values or "no values of its own"]
        named = ((name, getattr(preset, name)) for name in ("mode", "max_length", "system"))
        parts += [f"{name} {value}" for name, value in named if value]
        if preset.stop:
            parts.append("stop " + " | ".join(map(repr, preset.stop)))
        if preset.prompt:
            parts.append("begins with a prompt")
        sentence = "\n".join([" · ".join(parts), *self._problems])
        self.about.update(Content(sanitise(sentence)))

    def choose(self, id: str) -> None:
        """Closes with a preset, and deletes those that are marked."""
        self._leave(self._presets[id])

    def action_leave(self) -> None:
        """Closes without a preset, and deletes those that are marked."""
        self._leave(None)

    def action_delete_preset(self) -> None:
        """Marks the preset under the cursor for deletion, or takes the mark back."""
        name = self.highlighted
        if not name:
            return
        if not self._presets[name].own:
            self.about.update("It came with edge-tui and stays.")
            self.app.bell()
            return
        self._marked_for_delete ^= {name}
        self.reload()

    def _leave(self, chosen: Preset | None) -> None:
        for name in self._marked_for_delete:
            try:
                presets.remove(self._presets[name])
            except presets.PresetError as error:
                self.app.notify(sanitise(str(error)), severity="error", markup=False)
        self.dismiss(chosen)


class NameScreen(Dialog[str]):
    """Asks for a name; returns it, or None."""

    BINDINGS = bindings("name")
    hint = "enter save · esc leave"

    def __init__(self, heading: str, about: str) -> None:
        super().__init__(heading)
        self.about = Static(sanitise(about), markup=False, classes="hint")

    def content(self) -> Iterable[Widget]:
        """Lists the field, then the line about the name."""
        return Field("name"), self.about

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Closes with the name, if a file name can be made of it."""
        event.stop()
        if presets.name_of(event.value):
            self.dismiss(event.value)
        else:
            self.about.update("A name has at least one letter or digit.")
