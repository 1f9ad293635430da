"""Shows the prompt as the model reads it, before anything runs; or scores a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.content import Content

from edge_tui.transcript.read_prompt import entropy_after
from edge_tui.tui import editor
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.services import services
from edge_tui.tui.widgets.fitted_text import FittedText
from edge_tui.tui.widgets.place_panel import PlacePanel
from edge_tui.tui.widgets.prompt_tokens import PromptTokens
from edge_tui.util import logs
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual import events
    from textual.widget import Widget

    from edge_tui.engine.events import PromptRead
    from edge_tui.tui.prompt_reader import PromptReader
    from edge_tui.tui.readings import Reading
    from edge_tui.tui.widgets.token_pane import TokenPane

BESIDE = 120
"""Least width that puts what is expected beside the prompt, else below it."""
_LOOK = 0.1
"""Seconds between looks at a reading that goes on."""


class ReadPromptScreen(Dialog[None]):
    """Shows the tokens of a prompt, what the model expects at the cursor, and after the last one without it.

    Args:
        reader: Has the prompt read.
    """

    BINDINGS = bindings("reading")
    AUTO_FOCUS = "PromptTokens"

    def __init__(self, reader: PromptReader) -> None:
        super().__init__()
        self.reader = reader
        self.tokens = PromptTokens(reader.texts_of)
        self.place = PlacePanel(reader.texts_of, id="place")
        self.facts = FittedText(id="facts")
        self._said = ""
        self._reading: Reading | None = None
        self._settled = False
        """True once the end of the reading has been shown."""
        self._read: PromptRead | None = None
        """The prompt that is shown: the last one that was read."""

    def content(self) -> Iterable[Widget]:
        """Yields the tokens with their facts, and the place of the cursor."""
        yield Container(Vertical(self.tokens, self.facts), self.place, id="halves")

    def on_mount(self) -> None:
        """Reads the prompt, and looks for its end."""
        self._begin()
        self.set_interval(_LOOK, self._follow)

    def on_unmount(self) -> None:
        """Stops a reading that goes on."""
        self.reader.session.readings.leave()

    def on_resize(self, event: events.Resize) -> None:
        """Puts the halves side by side where there is room."""
        self.set_class(event.size.width >= BESIDE, "-beside")

    # Reading.

    def _begin(self) -> None:
        """Has the model read what is chosen; what was read before stays until then."""
        self._said, self._reading = "", self.reader.read()
        self._look()

    def _follow(self) -> None:
        if not self._settled:
            self._look()

    def _look(self) -> None:
        """Shows a prompt that has been read, or how far that is."""
        reading = self._reading
        assert reading is not None
        self._settled = not reading.active
        status = self.reader.status(reading)
        if status is None:
            self._show_prompt(reading.prompt)
        elif status.failed:
            if reading.failed is not None and reading.failed.detail:
                logs.write_detail(reading.failed.detail)
            self._show_prompt(None)
        self.tokens.empty_text = status.sentence if status is not None else ""
        self._write_title()
        if status is not None and self._read is not None:
            self.facts.update(Content(one_line(status.sentence)))

    def _show_prompt(self, read: PromptRead | None) -> None:
        """Shows a prompt, or nothing."""
        self._read = read
        if read is not None:
            self.tokens.show_prompt(read)
        else:
            self.tokens.show(None)
        self._show_place()

    def _write_title(self) -> None:
        self.box.border_title = Content(self.reader.title(self._read if self._settled else None))
        self.box.border_subtitle = Content(self.reader.hint)

    def _show_place(self) -> None:
        """Shows what is expected at the cursor, or after the last token."""
        read, reading = self._read, self._reading
        if reading is None or not self._settled:
            return
        first, note = reading.first, self.reader.note(reading)
        self.place.show_place(read, self.tokens.cursor if read is not None else None, first, note)
        self._write_facts()

    def _write_facts(self) -> None:
        """Writes the sums, the entropy after the cursor, and a sentence."""
        read, reading = self._read, self._reading
        if read is None or reading is None:
            self.facts.update(Content(one_line(self._said)))
            return
        entropy = f"\nH after this point {entropy_after(read, self.tokens.cursor):.2f} nats"
        said = self._said
        if not said and reading.started is not None:
            thought = "The answer begins inside a thought." if reading.started.thinking else ""
            said = " ".join(filter(None, (thought, *reading.started.notices)))
        parts = [(self.reader.facts(read), ""), (entropy, "$text-muted")]
        parts.append((f" · {one_line(said)}" if said else "", "$warning"))
        self.facts.update(Content.assemble(*parts))

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        """Shows the place of the cursor."""
        event.stop()
        self._show_place()

    # Keys.

    def action_chat(self) -> None:
        """Reads the prompt without the chat template, or with it again."""
        reader = self.reader
        if reader.has_template is False and not reader.raw:
            self._say("This model has no chat template: it reads raw text.")
        elif reader.text is None:
            reader.raw = not reader.raw
            self._begin()

    def action_system(self) -> None:
        """Reads the prompt without the system prompt, or with it again."""
        reader = self.reader
        if not reader.run_params.system:
            self._say("No system prompt is set; esc, then , sets one.")
        elif reader.text is None:
            reader.with_system = not reader.with_system
            self._begin()

    def action_answer(self) -> None:
        """Reads the answer on the screen behind its prompt, or leaves it out again."""
        reader = self.reader
        if reader.refusal:
            self._say(reader.refusal)
        elif reader.text is None:
            reader.with_answer = not reader.with_answer
            self._begin()

    def action_prompt(self) -> None:
        """Goes back from a text to the prompt."""
        if self.reader.text is not None:
            self.reader.begin()
            self._begin()

    def action_load_file(self) -> None:
        """Scores a file."""
        from edge_tui.tui.screens.files import ScoreFileScreen

        self.app.push_screen(ScoreFileScreen(), self._score_file)

    def _score_file(self, path: Path | None) -> None:
        if path is None:
            return
        try:
            self._score(editor.read_text(path))
        except editor.EditorError as error:
            self._say(str(error))

    def on_paste(self, event: events.Paste) -> None:
        """Scores a pasted text."""
        event.stop()
        if event.text:
            self._score(event.text)

    def _score(self, text: str) -> None:
        self.reader.text = text
        self._begin()

    def _say(self, sentence: str) -> None:
        self._said = sentence
        self._write_facts()

    def action_show_help(self) -> None:
        """Opens the help."""
        services(self).action_show_help()
