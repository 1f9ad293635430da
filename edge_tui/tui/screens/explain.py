"""Explains a parameter by its effect on one token's distribution, live while it is stepped."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from edge_tui.decoders.base import TextParam, numbers
from edge_tui.decoders.contrastive import SEED
from edge_tui.decoders.registry.description import is_chain
from edge_tui.transcript.values_at import values_at
from edge_tui.tui import param_preview
from edge_tui.tui.actions import bindings
from edge_tui.tui.chain_editor import lines_of
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.services import services
from edge_tui.tui.widgets.inspector import visible
from edge_tui.tui.widgets.line_panel import pad
from edge_tui.util.formatting import bar, clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from edge_tui.tui.chain_editor import Line
    from edge_tui.tui.param_preview import Group
    from edge_tui.tui.session import Session
    from edge_tui.tui.widgets.line_panel import Parts
    from edge_tui.tui.widgets.parameters import ParameterTable
    from edge_tui.tui.widgets.token_pane import TokenPane

_LINES = 9
"""Tokens in the preview, besides the rest."""
_VALUE = 300
"""Characters of a value above the picture."""
_TEXT = 16


class ExplainScreen(Dialog[None]):
    """Steps the workbench's own parameters, so that a run in progress follows; esc leaves.

    Args:
        table: The parameters.
        pane: Its cursor is on the token whose distribution is drawn; without one the newest token's is.
        session: Its model has the vocabulary and the texts of the tokens.
    """

    BINDINGS = bindings("explain")
    hint = "←→ turn · ↑↓ another · ⌫ default · esc leave"

    def __init__(self, table: ParameterTable, pane: TokenPane, session: Session) -> None:
        super().__init__()
        self._table = table
        self._pane = pane
        self._session = session
        self.picture = Static()

    def content(self) -> Iterable[Widget]:
        """Yields the drawing."""
        yield self.picture

    def on_mount(self) -> None:
        """Draws four times a second, because a run in progress has new tokens."""
        self.paint()
        # The token in question is the newest one while a run goes on.
        self.set_interval(0.25, self.paint)

    def on_resize(self) -> None:
        """Draws for the new size."""
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
        """Draws everything again."""
        row = self._table.row
        self.box.border_title = Content(one_line(row.title))
        when = "takes effect at the next token" if row.live else "holds from the next run on"
        facts = f"{clip(row.shown, _VALUE)} · {row.range} · {row.source} · {when}"
        parts: list[tuple[str, str]] = [
            (one_line(row.help) + "\n", "$foreground"),
            (one_line(facts) + "\n\n", "$text-muted"),
        ]
        self.picture.update(Content.assemble(*parts, *self._preview(row.key)))

    def _preview(self, name: str) -> Parts:
        """Draws the effect of a parameter, or says why there is none to be seen."""
        transcript = self._pane.transcript
        if isinstance(self._table.run_params.param(name), TextParam):
            return _sentence("It is a text: there is no picture of it.")
        if name not in param_preview.PREVIEWABLE:
            return _sentence("It decides about whole runs, not within one token: there is no picture of it.")
        if unknown := self._unknown_stage():
            return _sentence(f"{one_line(unknown)} is in the chain too, and there is no picture of it.")
        if transcript is None or not len(transcript):
            return _sentence("Run a prompt first: the picture shows what it does to a token's choice.")
        cursor = self._pane.cursor
        index = min(cursor if cursor is not None else len(transcript) - 1, len(transcript) - 1)
        token = transcript.token(index)
        top = [other for other in token.top if other.id >= 0]
        if not top:
            return _sentence("Nothing was recorded of this token's alternatives.")
        values, amateur = self._values(), list[float | None]()
        if "formula" in values:
            recorded = values_at(transcript, index)
            logp = [other.extras.get("amateur") for other in top]
            if all(each is None for each in logp):
                return _sentence("Run contrastive first: the picture needs what the amateur thinks.")
            if values["formula"] == SEED != recorded.get("formula"):
                return _sentence("Run it with the formula seed first: the picture needs its numbers.")
            amateur = [None if e is None else param_preview.amateur_as_it_is(e, recorded) for e in logp]
        ids, answer = [other.id for other in top], transcript.ids(index)
        main = self._session.loaded.get("model")
        found = param_preview.groups(
            [other.logp for other in top],
            main.vocab if main is not None else 0,
            [answer.count(each) for each in ids],
            amateur,
        )
        head = f"token #{index} {visible(token.text)}"
        return self._bars(head, name, list(map(visible, self._session.texts_of(ids))), found, values)

    def _values(self) -> dict[str, float]:
        """Reads the values of the next request, as numbers."""
        run_params = self._table.run_params
        values = {param.name: run_params.value(param)[0] for param in numbers(run_params.decoder.params)}
        return values | ({"do_sample": 0.0} if run_params.decoder.takes_argmax else {})

    def _unknown_stage(self) -> str:
        """Names a stage that acts and of whose effect no picture is known; "" without one."""
        whole = is_chain(self._table.run_params.decoder)
        for line in lines_of(self._table.run_params):
            names = _names(line)
            known = whole and names and param_preview.PREVIEWABLE.issuperset(names)
            if line.place is not None and not line.is_off and not known:
                return line.title
        return ""

    def _chain(self) -> list[str]:
        """Lists the parameters of a chain in the order of its stages; none where a strategy does more."""
        run_params = self._table.run_params
        lines = lines_of(run_params) if is_chain(run_params.decoder) else []
        return [name for line in lines for name in _names(line)]

    def _bars(
        self, head: str, name: str, texts: list[str], found: list[Group], values: dict[str, float]
    ) -> Parts:
        """Draws each token's probability without the parameter beside that with it."""
        chain = self._chain()
        after = param_preview.apply(found, values, chain)
        without = param_preview.without(name, values)
        was = param_preview.shares(param_preview.apply(found, without, chain))
        now = param_preview.shares(after)
        width = max((self.picture.content_size.width or 74) - _TEXT - 17, 12)
        room, ascii_only = width // 2, services(self).ascii
        left = f"without {name.replace('_', ' ')}" if param_preview.has_neutral(name) else "now"
        parts = [
            (f"{clip(head, _TEXT + 12):<{_TEXT}} ", "$accent bold"),
            ("\n" + " " * (_TEXT + 1), ""),
            (f"{clip(left, room + 7):<{room + 8}} ", "$text-muted"),
            ("with it\n", "$text-muted"),
        ]
        lines = list(zip(texts, was, now, strict=False))[:_LINES]
        others = f"{sum(group.many for group in found[len(lines) :]):,} others"
        lines.append((others, 1 - sum(line[1] for line in lines), 1 - sum(line[2] for line in lines)))
        # The longest bar is the whole width: it is the change that one looks for.
        most = max(max(before, share) for _, before, share in lines) or 1.0
        for text, before, share in lines:
            removed = share <= 0 < before
            parts += [
                (pad(clip(text, _TEXT), _TEXT + 1), "$text-disabled strike" if removed else "$foreground"),
                (bar(before / most, room, ascii_only), "$text-muted"),
                (f"{max(before, 0):>6.1%}   ", "$text-muted"),
                (bar(share / most, room, ascii_only), "$primary"),
                (f"{max(share, 0):>6.1%}\n", "$text-disabled" if removed else "$foreground bold"),
            ]
        if name == "repetition_penalty":
            return parts + _sentence(
                "Roughly: it acts on logits, of which only differences are recorded; it also acts on the "
                "prompt's tokens, which are not shown."
            )
        remaining = sum(group.many for group in after if exp(group.z) > 0)
        # Of a choice without a draw the picture shows what competes.
        drawn = "can be drawn." if values.get("sample", 1.0) > 0 else "compete; the best is taken."
        return parts + _sentence(f"{remaining:,} of {sum(group.many for group in found):,} tokens {drawn}")


def _sentence(text: str) -> Parts:
    return [(text, "$text-muted")]


def _names(line: Line) -> list[str]:
    """Lists the parameters of a stage."""
    return [param.name for param in line.link.params] if line.link is not None else []
