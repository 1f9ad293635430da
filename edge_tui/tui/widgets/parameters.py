"""Shows and edits the parameters of the strategy and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from edge_tui.decoders.base import Param, ParamError
from edge_tui.tui.actions import bindings
from edge_tui.tui.chain_editor import lines_of
from edge_tui.tui.widgets.chain_line import ChainLine
from edge_tui.tui.widgets.field import Field
from edge_tui.tui.widgets.fitted_text import FittedText
from edge_tui.tui.widgets.line_panel import pad
from edge_tui.util.formatting import clip, thin_bar
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.widgets import Input

    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.run_settings import Row
    from edge_tui.tui.widgets.line_panel import Parts


class ParameterTable(Widget, can_focus=True):
    """Draws one line per value, and scrolls to keep the chosen one in sight."""

    DEFAULT_CSS = """
    ParameterTable { height: 1fr; }
    """
    BINDINGS = bindings("parameters")

    index: reactive[int] = reactive(0)

    @dataclass
    class Changed(Message):
        """Reports that a value has changed."""

        key: str

    class Edit(Message):
        """Asks to edit the value of the chosen line as text."""

    class Explain(Message):
        """Asks to explain the chosen parameter."""

    class Moved(Message):
        """Reports that another line is chosen."""

    def __init__(self, run_params: RunParams) -> None:
        super().__init__()
        self.run_params = run_params
        self._rows: list[Row] = run_params.rows()
        self._top = 0
        self.ascii_only = False

    @property
    def row(self) -> Row:
        """The line under the cursor."""
        return self._rows[min(self.index, len(self._rows) - 1)]

    def reload(self) -> None:
        """Reads the values again; stays on the same key where it still exists."""
        key = self.row.key
        self._rows = self.run_params.rows()
        if not self.choose(key):
            self.index = 0
        self.refresh()
        self.post_message(self.Moved())

    def choose(self, key: str) -> bool:
        """Goes to a line by its key; False if there is none."""
        keys = [row.key for row in self._rows]
        if key not in keys:
            return False
        self.index = keys.index(key)
        return True

    def watch_index(self) -> None:
        """Reports that another line is chosen."""
        if self.is_mounted:
            self.post_message(self.Moved())

    # Painting.

    def _lines(self) -> list[int | None]:
        """Lists row numbers from top to bottom; None is the line between strategy and run."""
        lines: list[int | None] = []
        for i, row in enumerate(self._rows):
            if i and row.group != self._rows[i - 1].group:
                lines.append(None)
            lines.append(i)
        return lines

    def render(self) -> Content:
        """Writes the lines in sight, and a heading above the settings of the run."""
        width, height = self.content_size
        lines = self._lines()
        at = lines.index(min(self.index, len(self._rows) - 1))
        # The heading above a group's first line comes into sight with it.
        first = at - 1 if at and lines[at - 1] is None else at
        self._top = max(min(self._top, first), at - height + 1, 0)
        self._top = max(min(self._top, len(lines) - height), 0)
        shown = lines[self._top : self._top + height]
        parts: list[str | tuple[str, str]] = []
        for n, line in enumerate(shown):
            if line is None:
                rule = "─" * max(width - 6, 0)
                parts += [("─", "$border-blurred"), (" run ", "$text-muted"), (rule, "$border-blurred")]
            else:
                parts += self._line(self._rows[line], line == self.index, width)
            parts.append("\n" if n < len(shown) - 1 else "")
        return Content.assemble(*parts)

    def _line(self, row: Row, here: bool, width: int) -> Parts:
        """Writes title, bar and value of one line."""
        focused = here and self.has_focus
        back = " on $block-cursor-background" if focused else " on $panel" if here else ""

        def style(colour: str) -> str:
            """Adds the cursor's background; under the focused cursor all of the line has one colour."""
            return ("$block-cursor-foreground" if focused else colour) + back

        label, value_room = 16, 8 if width >= 32 else 6
        title = pad(clip(one_line(row.title), label - 1), label - 1)
        parts = [(("▸" if here else " ") + title, style("$foreground"))]
        if row.fraction is not None:
            full, rest = thin_bar(row.fraction, max(width - label - value_room - 2, 2), self.ascii_only)
            parts += [(full, style("$primary")), (rest, style("$text-muted"))]
            parts.append((clip(row.shown, value_room).rjust(value_room), style("$foreground")))
        else:
            room = width - label - 2
            value = clip(one_line(row.shown), room)
            value = " " * (room - cell_len(value)) + value
            parts.append((value, style("$foreground" if row.changed else "$text-muted")))
        parts.append(("•" if row.changed else " ", style("$accent")))
        used = sum(cell_len(text) for text, _ in parts)
        return [*parts, (" " * max(width - used, 0), style("$foreground"))]

    # Keys and mouse.

    def on_focus(self) -> None:
        """Paints the cursor of a focused table."""
        self.refresh()

    def on_blur(self) -> None:
        """Paints the cursor of a table without the focus."""
        self.refresh()

    def action_previous(self) -> None:
        """Goes one line up; above the first to the last."""
        self.index = (self.index - 1) % len(self._rows)

    def action_next(self) -> None:
        """Goes one line down; below the last to the first."""
        self.index = (self.index + 1) % len(self._rows)

    def action_first(self) -> None:
        """Goes to the first line."""
        self.index = 0

    def action_last(self) -> None:
        """Goes to the last line."""
        self.index = len(self._rows) - 1

    def action_parameter_up(self, steps: int = 1) -> None:
        """Moves the value by steps."""
        if self.run_params.step(self.row.key, steps):
            self._announce()

    def action_parameter_down(self, steps: int = 1) -> None:
        """Moves the value by steps, downwards."""
        self.action_parameter_up(-steps)

    def action_edit(self) -> None:
        """Goes to the next of several choices; asks for the field where the value is typed."""
        param = self.run_params.param(self.row.key)
        if isinstance(param, Param) and param.choices:
            self.action_parameter_up()
        else:
            self.post_message(self.Edit())

    def action_explain(self) -> None:
        """Asks to explain the parameter."""
        self.post_message(self.Explain())

    def action_reset(self) -> None:
        """Drops the user's value."""
        self.run_params.reset(self.row.key)
        self._announce()

    def _announce(self) -> None:
        self.reload()
        self.post_message(self.Changed(self.row.key))

    def on_click(self, event: events.Click) -> None:
        """Goes to the line that was clicked; a double click edits it."""
        lines = self._lines()
        line = self._top + event.y
        if line < len(lines) and (row := lines[line]) is not None:
            self.index = row
            if event.chain == 2:
                self.action_edit()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Goes one line up."""
        event.stop()
        self.index = max(self.index - 1, 0)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Goes one line down."""
        event.stop()
        self.index = min(self.index + 1, len(self._rows) - 1)


class ValueInput(Field):
    """Edits a value as text; esc leaves it as it was."""

    DEFAULT_CSS = """
    ValueInput { height: 1; border: none; padding: 0 1; background: $panel; }
    ValueInput:focus { border: none; background: $panel-lighten-1; }
    """
    BINDINGS = bindings("value")

    class Cancelled(Message):
        """Reports that the user leaves the field without a value."""

    def __init__(self) -> None:
        super().__init__(select_on_focus=True)

    def action_leave(self) -> None:
        """Reports that the user leaves the field without a value."""
        self.post_message(self.Cancelled())


class Parameters(Vertical):
    """Lays out the strategy's chain, the table, the field and the help line."""

    DEFAULT_CSS = """
    Parameters { border: round $border-blurred; }
    Parameters:focus-within { border: round $border; }
    Parameters > ValueInput { display: none; }
    Parameters.-editing > ValueInput { display: block; }
    Parameters > #parameter-help { dock: bottom; height: 3; max-height: 50%; padding: 0 1; }
    Parameters > #parameter-help { color: $text-muted; }
    Parameters.-refused > #parameter-help { color: $error; }
    """

    def __init__(self, run_params: RunParams, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.run_params = run_params
        self.border_title = "parameters"
        self.chain = ChainLine()
        self.table = ParameterTable(run_params)
        self.field = ValueInput()
        self.help_line = FittedText(id="parameter-help")
        self._editing = ""

    def compose(self) -> ComposeResult:
        """Lays out the chain, table, field and help line."""
        yield self.chain
        yield self.table
        yield self.field
        yield self.help_line

    def on_mount(self) -> None:
        """Shows the chain, and explains the first line."""
        self.show_chain()
        self.explain()

    def show_chain(self) -> None:
        """Shows the stages of the strategy in order."""
        self.chain.show(lines_of(self.run_params))

    def reload(self) -> None:
        """Reads the values again."""
        self.table.reload()

    def explain(self) -> None:
        """Shows help on the chosen value, its source, and when a change holds."""
        self.remove_class("-refused")
        row = self.table.row
        when = "" if row.live else " · next run"
        self.border_subtitle = Content(one_line(f"{row.range} · {row.source}{when}"))
        self._say(row.help)

    def _say(self, sentence: str) -> None:
        self.help_line.update(one_line(sentence))

    def refuse(self, key: str, message: str) -> None:
        """Shows at the field why a value is refused."""
        self.table.choose(key)
        self.call_after_refresh(self._show_refusal, message)

    def _show_refusal(self, message: str) -> None:
        self.add_class("-refused")
        self._say(message)

    def on_parameter_table_moved(self) -> None:
        """Explains the chosen line, and shows the chain as the values make it."""
        self.show_chain()
        if not self._editing:
            self.explain()

    def on_parameter_table_edit(self) -> None:
        """Opens the field with the chosen line's value."""
        key = self.table.row.key
        self._editing = key
        self.border_subtitle = "enter take · esc leave"
        self.field.value = self.run_params.text(key)
        self.add_class("-editing")
        self.field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Sets the value that was typed, or says why it is refused."""
        event.stop()
        try:
            self.run_params.set(self._editing, event.value)
        except ParamError as error:
            self._show_refusal(one_line(str(error)))
            return
        key = self._editing
        self.close()
        self.table.reload()
        self.post_message(ParameterTable.Changed(key))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Takes a refusal back while the user types."""
        event.stop()
        self.remove_class("-refused")

    def on_value_input_cancelled(self) -> None:
        """Closes the field."""
        self.close()

    def close(self) -> None:
        """Closes the field and goes back to the table."""
        self._editing = ""
        self.remove_class("-editing")
        self.table.focus()
        self.explain()
