"""Shows the tokens that a model expects at one place of a prompt, or after it."""

from __future__ import annotations

from math import exp, nan
from typing import TYPE_CHECKING, Any

from edge_tui.transcript.fitting import fit_start
from edge_tui.tui.widgets.line_panel import LinePanel
from edge_tui.util.formatting import bar, compact_float, percent
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.engine.events import PromptRead, TokenBatch
    from edge_tui.tui.widgets.line_panel import Line

_LONGEST_TEXT = 24
"""Most cells of a token's text."""
_ROLES = {"user": "yours", "system": "the system prompt's", "assistant": "the answer's", "": "the template's"}


class PlacePanel(LinePanel):
    """Shows the distribution in the place of a token, or after the last one: as the model has it, and as the
    strategy draws from it.

    Args:
        texts_of: Texts of single tokens (`Engine.decode`).
    """

    def __init__(self, texts_of: Callable[[Sequence[int]], list[str]], **options: Any) -> None:
        super().__init__(**options)
        self._texts_of = texts_of
        self._read: PromptRead | None = None
        self._first: TokenBatch | None = None
        self._index: int | None = None
        self._note = ""

    def show_place(
        self, read: PromptRead | None, index: int | None, first: TokenBatch | None = None, note: str = ""
    ) -> None:
        """Shows a place.

        Args:
            read: The prompt; None shows nothing.
            index: The token in whose place; None means after the last one.
            first: The token that the strategy takes there.
            note: Says who takes it; its text follows. Empty where another seed takes another one.
        """
        self._read, self._index, self._first, self._note = read, index, first, note
        self.update_lines()

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes the place, then a bar for each of the tokens that are expected most."""
        if self._read is None:
            return []
        if self._index is None or self._index >= len(self._read.ids):
            return self._next_lines(self._read, width, height)
        return self._token_lines(self._read, self._index, width, height)

    def _next_lines(self, read: PromptRead, width: int, height: int) -> list[Line]:
        first = self._first
        head: Line = (
            (fit_start("next token, before anything runs", width - 16), "$accent bold"),
            (f"{f'H {read.next_entropy:.2f} nats':>16}", "$text-muted"),
        )
        taken, drawn = -1, dict[int, float]()
        if first is not None:
            drawn = _shares(first.final_ids[0], first.final_top_logp[0])
            taken = int(first.id[0]) if self._note else -1
        tail: list[Line] = []
        if taken >= 0:
            sentence = f"{self._note} {visible(self._text(taken))}"
            tail.append(((fit_start(sentence, width), "$text-muted"),))
        shares = _shares(read.next_ids, read.next_logp)
        if taken >= 0:
            shares.setdefault(taken, nan if first is None else exp(float(first.raw_logp[0])))
        room = max(height - 1 - len(tail), 0)
        return [head, *self._table(shares, taken, width, room, drawn if first is not None else None), *tail]

    def _token_lines(self, read: PromptRead, index: int, width: int, height: int) -> list[Line]:
        token = read.ids[index]
        role = _ROLES.get(read.roles[index], "") if read.roles else ""
        about = " · ".join(filter(None, (f"#{index}", f"id {token}", role)))
        text = fit_start(visible(self._text(token)), max(width - len(about) - 1, 8))
        head: Line = ((text, "$accent bold"), (f" {about}", "$text-muted"))
        if not index:
            sentence = "Nothing comes before the first token, so none is expected in its place."
            return [head, ((fit_start(sentence, width), "$text-muted"),)]
        logp = float(read.logp[index])
        facts = (
            f"p {percent(exp(logp)).strip()} · log p {compact_float(logp)} · rank {read.rank[index] + 1:,}"
            f" · H {read.entropy[index]:.2f} nats"
        )
        shares = _shares(read.top_ids[index], read.top_logp[index])
        shares.setdefault(token, exp(logp))
        return [head, ((fit_start(facts, width), ""),), *self._table(shares, token, width, height - 2, None)]

    def _table(
        self,
        shares: Mapping[int, float],
        taken: int,
        width: int,
        height: int,
        drawn: Mapping[int, float] | None,
    ) -> list[Line]:
        """Draws a head and a line for each token; with `drawn`, also what the strategy makes of it."""
        listed = list(shares)[: max(height - 1, 0)]
        if taken in shares and taken not in listed:
            listed[-1:] = [taken]
        names = ("raw", "final") if drawn is not None else ("raw",)
        room = width - 3 - 7 * len(names)
        text_width = min(max(room // 2, 8), _LONGEST_TEXT)
        bar_width = max(room - text_width, 0)
        kind = "most likely here" if self._index is not None else "the model's own"
        head: Line = (
            (fit_start(f"  {kind}", width - 7 * len(names)), "$text-muted"),
            ("".join(f"{name:>7}" for name in names), "$text-muted"),
        )
        lines = [head]
        for token, text in zip(listed, map(visible, self._texts_of(listed)), strict=True):
            style = "bold" if token == taken else ""
            cut = drawn is not None and token not in drawn
            final = "" if drawn is None else f" {percent(drawn[token])}" if not cut else "    cut"
            lines.append(
                (
                    ("● " if token == taken else "  ", style),
                    (fit_start(text, text_width) + " ", "$text-disabled" if cut else style),
                    (bar(shares[token], bar_width), "$primary"),
                    (f" {percent(shares[token])}", style),
                    (final, "$text-disabled" if cut else style),
                )
            )
        return lines[:height]

    def _text(self, token: int) -> str:
        return next(iter(self._texts_of([token])), "")


def _shares(ids: Any, logps: Any) -> dict[int, float]:
    """Returns probabilities by id, best first, without unused slots."""
    return {token: exp(logp) for token, logp in zip(ids.tolist(), logps.tolist(), strict=True) if token >= 0}
