"""Shows the error of a strategy file, with the lines around it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from textual.content import Content
from textual.widgets import Static

from edge_tui.decoders import Problem
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line
from edge_tui.util.user_file import read_bytes

_AROUND = 1
"""Lines of the file that are shown before and after the one at fault."""
_LIMIT = 1_000_000
"""Bytes of a file that are looked at."""


class StrategyErrorPanel(Static):
    """Shows one problem of a strategy file; hidden without one."""

    DEFAULT_CSS = """
    StrategyErrorPanel { display: none; height: auto; border: round $error; border-title-color: $error;
        border-subtitle-color: $text-muted; padding: 0 1; }
    StrategyErrorPanel.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.problem: Problem | None = None
        self.while_running = False
        """True where a step failed, False where the file could not be read."""
        self.reverted = False
        """True where the version before, which has run, is in use again."""

    def show(self, problem: Problem | None, *, while_running: bool = False, reverted: bool = False) -> None:
        """Shows a problem, or nothing."""
        self.problem, self.while_running, self.reverted = problem, while_running, reverted
        self.set_class(problem is not None, "-shown")
        self._write()

    def on_resize(self) -> None:
        """Writes the problem for the new width."""
        self._write()

    def _write(self) -> None:
        """Writes the problem and the lines around it, cut to the panel's width."""
        problem = self.problem
        if problem is None:
            return
        place = Path(problem.source).name + (f", line {problem.line}" if problem.line else "")
        self.border_title = Content(one_line(place))
        self.border_subtitle = "esc hides"
        sentence = "Save the file to try again."
        if self.reverted:
            sentence = "The last version that ran is in use again. " + sentence
        elif not self.while_running:
            sentence = "Its last good version stays in use, if it had one. " + sentence
        parts = [(one_line(problem.sentence) + "\n", "$error")]
        # While it is hidden it has no width; the resize that comes with showing it tells.
        room = max(self.content_size.width - 7, 20) if self.content_size.width else _LIMIT
        for number, line in _excerpt(problem):
            here = number == problem.line
            mark, style = ("▸", "$foreground bold") if here else (" ", "$text-muted")
            parts.append((f"{mark}{number:>4}  {clip(one_line(line), room)}\n", style))
        self.update(Content.assemble(*parts, (sentence, "$text-muted")))


def _excerpt(problem: Problem) -> list[tuple[int, str]]:
    """Reads the line at fault and its neighbours, numbered from 1, without their common indentation."""
    if not problem.line:
        return []
    try:
        lines = read_bytes(Path(problem.source)).decode(errors="replace").splitlines()
    except OSError:
        return []
    first = max(problem.line - 1 - _AROUND, 0)
    shown = dedent("\n".join(lines[first : problem.line + _AROUND])).split("\n")
    return list(enumerate(shown, first + 1))
