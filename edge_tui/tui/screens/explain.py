"""Turns a parameter, and shows what becomes of one token: the ladder as it was beside the one it would be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from textual.content import Content
from textual.widgets import Static

from edge_tui.decoders.base import TextParam
from edge_tui.transcript.fitting import fit_start, pad, wrap_words
from edge_tui.transcript.why_text import find
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.widgets.ladder_view import fitting_lines, painted
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from edge_tui.engine.explanation import Explanation
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.widgets.line_panel import Line, Parts
    from edge_tui.tui.widgets.parameters import ParameterTable
    from edge_tui.tui.widgets.token_pane import TokenPane

_VALUE = 300
"""Characters of a value above the ladders."""
_GAP = 2
"""Cells between the ladders."""
_LOW = 30
"""Height under which ladders have no sentence: what becomes of the token stands above them."""
_LOWEST = 20
"""Height under which there is no help either."""
_NEWEST = "This is the newest token. For another one, leave with esc and move onto it (arrows in the answer)."
_ASKED = "The engine is being asked …"


class Reasons(Protocol):
    """Says why tokens were taken."""

    def reason(self, transcript: Transcript, index: int) -> tuple[Explanation | None, str, bool]:
        """Returns the reason of a token, or a sentence on why there is none; False while neither is known."""

    def turned(self, transcript: Transcript, index: int, was: Explanation) -> tuple[Explanation | None, str]:
        """Returns what the values of the next request make of a token; (None, "") while that is not known."""


class _Found(NamedTuple):
    """Holds what is known of the token.

    Attributes:
        head: Names it.
        hint: Says how to choose another one, where none was chosen.
        was: Why it was taken.
        now: What becomes of it; None while that is not known.
        note: Says why something is not known.
    """

    head: str = ""
    hint: str = ""
    was: Explanation | None = None
    now: Explanation | None = None
    note: str = ""


class ExplainScreen(Dialog[None]):
    """Turns the workbench's own parameters, so that a run in progress follows; esc leaves.

    Args:
        table: The parameters.
        pane: Its cursor is on the token in question; without one it is the newest token.
        why: Asks the engine.
    """

    BINDINGS = bindings("explain")
    hint = "←→ turn · ↑↓ another · ⌫ default · esc leave"

    def __init__(self, table: ParameterTable, pane: TokenPane, why: Reasons) -> None:
        super().__init__()
        self._table = table
        self._pane = pane
        self._why = why
        self._painted: object = None
        """What the picture was painted of."""
        self.picture = Static()

    def content(self) -> Iterable[Widget]:
        """Yields the ladders."""
        yield self.picture

    def on_mount(self) -> None:
        """Paints twenty times a second, for the engine answers in the meantime."""
        self.paint()
        self.set_interval(0.05, self.paint)

    def on_resize(self) -> None:
        """Paints for the new size."""
        self.paint()

    # Keys.

    def action_step(self, steps: int) -> None:
        """Steps the parameter's value."""
        self._table.action_parameter_up(steps)
        self.paint()

    def action_choose(self, steps: int) -> None:
        """Goes to the next or previous parameter."""
        self._table.action_next() if steps > 0 else self._table.action_previous()
        self.paint()

    def action_reset(self) -> None:
        """Drops the user's value."""
        self._table.action_reset()
        self.paint()

    # The picture.

    def paint(self) -> None:
        """Writes everything again, if anything is another than before."""
        row, found = self._table.row, self._find()
        state = (row, self._value(), self.app.size, self.picture.content_size, found)
        if state == self._painted:
            return
        self._painted = state
        self.box.border_title = Content(one_line(row.title))
        when = "takes effect at the next token" if row.live else "holds from the next run on"
        facts = f"{clip(row.shown, _VALUE)} · {row.range} · {row.source} · {when}"
        low = self.app.size.height < _LOWEST
        parts: Parts = [] if low else [(one_line(row.help) + "\n", "$foreground")]
        parts.append((one_line(facts) + ("\n" if low else "\n\n"), "$text-muted"))
        self.picture.update(Content.assemble(*parts, *self._ladders(found)))

    def _find(self) -> _Found:
        """Asks about the token, as it was and as it would be."""
        transcript = self._pane.transcript
        if transcript is None or not len(transcript):
            return _Found(note="Run a prompt first: then this shows what becomes of a token.")
        cursor = self._pane.cursor
        index = min(cursor if cursor is not None else len(transcript) - 1, len(transcript) - 1)
        hint = _NEWEST if cursor is None else ""
        head = f"token #{index} {visible(transcript.token(index).text)}"
        was, note, known = self._why.reason(transcript, index)
        if was is None:
            return _Found(head, hint, note=note if known else _ASKED)
        now, note = self._why.turned(transcript, index, was)
        return _Found(head, hint, was, now, note or _ASKED)

    def _ladders(self, found: _Found) -> Parts:
        """Writes both ladders, or says why there are none to be seen."""
        hint: Parts = [(f"{found.hint}\n", "$text-muted")] if found.hint else []
        if found.was is None:
            return [*hint, (found.note, "$text-muted")]
        was, now = found.was, None if found.now is None else _as_a_possibility(found.now)
        width, height = self.picture.content_size.width or 72, self.app.size.height
        width = (max(width, 56) - _GAP) // 2
        verdict = _verdict(was, now) if now is not None else found.note
        parts: Parts = [*hint, (f"{found.head}  ", "$accent bold"), (f"{verdict}\n", "$foreground bold")]
        room = (
            int(0.9 * height) - (7 if height < _LOWEST else 9) - len(wrap_words(found.hint, 2 * width + _GAP))
        )
        left, right = [_head("as it was", width)], [_head(self._value(), width)]
        for lines, why in ((left, was), (right, now)):
            if why is not None:
                why = _without_sentence(why) if height < _LOW else why
                lines += map(painted, fitting_lines(why, width, room))
        blank: Line = ((" " * width, ""),)
        for i in range(max(len(left), len(right))):
            parts += left[i] if i < len(left) else blank
            parts += [(" " * _GAP, ""), *(right[i] if i < len(right) else blank), ("\n", "")]
        return parts

    def _value(self) -> str:
        """Names the strategy of the next run, and the value that is turned."""
        row = self._table.row
        title = self._table.run_params.decoder.title
        if isinstance(self._table.run_params.param(row.key), TextParam):
            return one_line(f"{title} as it is set")
        return one_line(f"{title} · {row.title} {row.shown}")


def _verdict(was: Explanation, now: Explanation) -> str:
    """Says what becomes of the token."""
    if now.winner != was.token:
        return f"It becomes {visible(find(now, now.winner).text)}."
    return "It stays."


def _as_a_possibility(now: Explanation) -> Explanation:
    """Words the reason as one of what would be: the engine's sentence is about a run that was."""
    now = replace(now, others=())
    if now.winner == now.token:
        return now
    name, left = visible(find(now, now.winner).text), f"{now.candidate_count:,} tokens are left"
    return replace(now, sentence=f"{name} would be taken; {left}.", note="")


def _without_sentence(why: Explanation) -> Explanation:
    return replace(why, sentence="", note="")


def _head(text: str, width: int) -> Line:
    return ((pad(fit_start(text, width), width), "$text-muted"),)
