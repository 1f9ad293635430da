"""Shows two runs side by side, as they come or as they were kept, and why they part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Static

from edge_tui.history.compare import compare
from edge_tui.transcript.agreement import agreement_strip, cell_of_token, partings
from edge_tui.transcript.draw_conditions import Side, cutter_of
from edge_tui.transcript.parting import parting_at
from edge_tui.tui.actions import bindings
from edge_tui.tui.pair_reasons import PairReasons
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.services import services
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.line_panel import fit_start
from edge_tui.tui.widgets.parting_lines import parting_content
from edge_tui.tui.widgets.side_pane import SidePane
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.widget import Widget

    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.compare import Comparison
    from edge_tui.tui.session import Run, Session
    from edge_tui.tui.widgets.token_pane import TokenPane

BESIDE = 110
"""Least width that sets the runs beside each other, else one above the other."""
_SETTINGS = 3
"""Lines of settings at most."""
_PERIOD = 1 / 20
"""Seconds between looks at runs that still write."""
_WAITING = {
    "queued": "It waits for its turn.",
    "reading": "It reads the prompt.",
    "failed": "It did not begin.",
}


@dataclass(frozen=True, slots=True)
class Taken:
    """Names the run to go on with, and the token under the cursor; None for none."""

    run: Run
    index: int | None


class CompareScreen(Dialog[Taken]):
    """Shows the tokens of two runs, the reason at their parting, and the numbers under the cursor.

    Args:
        first: A run.
        second: Another.
        session: Engine and runs.
        heading: Title of the box.
    """

    BINDINGS = bindings("compare")
    AUTO_FOCUS = "SidePane"
    hint = "tab side · ← → token · n next parting · enter take · esc leave"

    def __init__(self, first: Run, second: Run, session: Session, heading: str) -> None:
        super().__init__(heading)
        self._name = heading
        self._runs = (first, second)
        self.panes = (SidePane("…"), SidePane("…"))
        self.inspectors = tuple(Inspector(partial(session.texts_of, run=run)) for run in self._runs)
        self._sides = tuple(Vertical(pane, classes="side") for pane in self.panes)
        self._strip = Static(id="agreement")
        self._settings_lines = Static(id="settings")
        self._reason = Static(id="reason")
        self.found: Comparison | None = None
        """What the runs have in common; None before both have begun."""
        self._reasons = PairReasons(session, self._runs)
        self._whys: tuple[Explanation | None, Explanation | None] = (None, None)
        """Why either run took its token at the parting."""
        self._shown: list[object] = [None, None]
        """The reasons that the inspectors show."""
        self._seen: tuple[object, ...] = ()

    def content(self) -> Iterable[Widget]:
        """Lists strip, differing settings, the two panes, the reason, and the numbers of the token."""
        for inspector in self.inspectors:
            inspector.can_focus = False
        return (
            self._strip,
            self._settings_lines,
            Container(*self._sides, id="pair"),
            self._reason,
            Container(*self.inspectors, id="numbers"),
        )

    def on_mount(self) -> None:
        """Shows both runs, at the first token that differs."""
        self.follow()
        self.set_interval(_PERIOD, self.follow)

    def on_resize(self, event: events.Resize) -> None:
        """Puts the panes side by side where there is room."""
        self.set_class(event.size.width >= BESIDE, "-beside")
        self.call_after_refresh(self._paint)

    # Following the runs.

    def follow(self) -> None:
        """Shows what the runs have written since the last look."""
        seen = tuple(
            (run.transcript, run.phase, run.transcript.record_count if run.transcript else 0)
            for run in self._runs
        )
        if seen != self._seen:
            self._seen = seen
            self._follow_tokens()
        self._follow_reasons()

    def _follow_tokens(self) -> None:
        for run, pane, inspector in zip(self._runs, self.panes, self.inspectors, strict=True):
            if run.transcript is not pane.transcript:
                pane.show(run.transcript)
                inspector.show(run.transcript, None)
            else:
                pane.refresh_tail()
                inspector.refresh_tail()
            refusal = run.failed.message if run.failed is not None else ""
            if not run.active:
                pane.refresh()  # the way back leads to the end now, not to the newest token
            pane.empty_text = refusal or _WAITING.get(run.phase, "No token yet.")
        self._compare()
        self._paint()

    def sides(self) -> tuple[Side, Side] | None:
        """The runs as sides of a comparison; None before both have begun."""
        one, other = (
            Side(run.request, run.transcript, run.models, why) if run.transcript is not None else None
            for run, why in zip(self._runs, self._whys, strict=True)
        )
        return (one, other) if one is not None and other is not None else None

    def _compare(self) -> None:
        """Finds the parting; the cursors wait there until the user moves them."""
        sides = self.sides()
        if sides is None:
            return
        parted = self.found is not None and self.found.diverges
        self.found = compare(*sides)
        for pane in self.panes:
            pane.shared_length = self.found.common_length
        common = self.found.common_length
        if not self.found.diverges or self.index not in (None, common):
            return  # the user leads
        if not any(run.active for run in self._runs):
            self.call_after_refresh(self._go_to, common)
        elif not parted:
            for pane in self.panes:
                pane.put_cursor(common)

    def _follow_reasons(self) -> None:
        """Asks why the tokens at the parting and under the cursors were taken, and shows what is known."""
        if self.found is None:
            return
        common = self.found.common_length
        transcripts = [run.transcript for run in self._runs if run.transcript is not None]
        ids = tuple(each.token(common).id for each in transcripts) if self.found.diverges else ()
        if ids:
            first, second = (self._reasons.reason(side, common, ids)[0] for side in range(2))
            if (whys := (first, second)) != self._whys and None not in whys:
                self._whys = whys
                self._paint()
        for side, inspector in enumerate(self.inspectors):
            at = inspector.index
            why, note = self._reasons.reason(side, at, ids if at == common else ())
            if (why is not None or note) and self._shown[side] != (at, id(why), note):
                self._shown[side] = at, id(why), note
                inspector.show_reason(why, note)

    # Painting.

    def _paint(self) -> None:
        """Writes everything that depends on the runs, the cursor or the size."""
        width = max(self._reason.container_size.width - 2, 20)
        for run, side in zip(self._runs, self._sides, strict=True):
            side.border_title = Content(self._title(run))
        if self.found is None:
            return
        common = self.found.common_length
        self.box.border_title = Content(f"{self._name} · {self._seeds()} · {common:,} tokens in common")
        self._strip.update(self._agreement(width))
        self._settings_lines.update(self._settings(width))
        self.set_class(bool(self.found.settings) and self._name == "compare", "-settings")
        self._reason.update(self._reason_text(width))
        at_parting = self.found.diverges and self.index in (None, common)
        self.set_class(at_parting, "-at-parting")

    def _seeds(self) -> str:
        seeds = list(dict.fromkeys(str(run.seed) for run in self._runs))
        return f"seed{'s' if len(seeds) > 1 else ''} {' and '.join(seeds)}"

    def _title(self, run: Run) -> str:
        if run.transcript is None:
            parts = [one_line(run.request.strategy)]
        else:
            parts = [self._label(Side(run.request, run.transcript)), f"{len(run.transcript):,} tokens"]
        return " · ".join([*parts, *([run.phase] if run.active else [])])

    def _label(self, side: Side) -> str:
        """Names a run by the stage that removes tokens, with its value, or by its strategy."""
        return cutter_of(side, self.found.common_length if self.found is not None else 0)

    def _agreement(self, width: int) -> Content:
        one, other = (pane.transcript.ids() if pane.transcript else () for pane in self.panes)
        strip = agreement_strip(one, other, width)
        longer = max(len(one), len(other))
        at = cell_of_token(self.index, longer, width) if self.index is not None and longer else -1
        parts = [
            (mark, f"{'$success' if mark == '█' else '$warning'}{' reverse' if cell == at else ''}")
            for cell, mark in enumerate(strip)
        ]
        return Content.assemble(*parts)

    @property
    def shown_reason(self) -> str:
        """The text below the panes."""
        return str(self._reason.content)

    def _reason_text(self, width: int) -> Content:
        """Writes why they part, or what they have in common."""
        assert self.found is not None
        sides = self.sides()
        if not self.found.diverges or sides is None:
            return Content.styled(self.found.verdict, "$success")
        parting = parting_at(*sides, self.found.common_length)
        return parting_content(parting, (self._label(sides[0]), self._label(sides[1])), width)

    def _settings(self, width: int) -> Content:
        assert self.found is not None
        parts: list[tuple[str, str]] = []
        shown = self.found.settings[: _SETTINGS if self.has_class("-beside") else 1]
        room = min(max((width - 24) // 2, 8), max((len(each.first) for each in shown), default=0))
        for number, each in enumerate(shown):
            name = clip(one_line(each.name), 18)
            parts += [("\n" if number else "", ""), (f"{name:<19}", "$text-muted")]
            parts += [(fit_start(_value(each.first), room), ""), ("  →  ", "$text-muted")]
            parts.append((clip(_value(each.second), width - 24 - room), ""))
        if more := len(self.found.settings) - len(shown):
            parts.append((f"  and {more} more", "$text-muted"))
        return Content.assemble(*parts)

    # The cursor.

    @property
    def _side(self) -> int:
        """Number of the side that has the focus."""
        return 1 if self.panes[1].has_focus else 0

    @property
    def index(self) -> int | None:
        """Position of the token under the cursor."""
        return self.panes[self._side].cursor

    def on_descendant_focus(self) -> None:
        """Shows the numbers of the side that has the focus, where there is room for one."""
        for number, inspector in enumerate(self.inspectors):
            inspector.set_class(number != self._side, "-other")

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        """Moves the other cursor too, and shows the numbers of both tokens."""
        event.stop()
        index = self.index
        self.panes[1 - self._side].go_to(index)
        for pane, inspector in zip(self.panes, self.inspectors, strict=True):
            inspector.show(pane.transcript, pane.cursor if pane.cursor == index else None)
        self._shown = [None, None]
        self._follow_reasons()
        self._paint()

    def _go_to(self, index: int) -> None:
        for pane in self.panes:
            pane.refresh_tail()
            pane.following = False
            pane.go_to(index)

    def action_difference(self) -> None:
        """Puts both cursors on the first token that differs."""
        if self.found is not None and self.found.diverges:
            self._go_to(self.found.common_length)

    def action_parting(self) -> None:
        """Goes to the next place at which the two part; behind the last one to the first."""
        ids = [pane.transcript.ids() for pane in self.panes if pane.transcript is not None]
        found = partings(*ids) if len(ids) == len(self.panes) else []
        if not found:
            self.app.bell()
            return
        at = self.index if self.index is not None else -1
        self._go_to(next((each for each in found if each > at), found[0]))

    def action_take(self) -> None:
        """Closes with the run that has the focus."""
        run = self._runs[self._side]
        if run.transcript is not None:
            self.dismiss(Taken(run, self.index))

    def action_show_help(self) -> None:
        """Opens the help."""
        services(self).action_show_help()


def _value(value: str) -> str:
    return one_line(" ".join(value.split())) or "–"
