"""Describes the screen for lessons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Input, OptionList, TextArea

from edge_tui.tui.actions import scopes_heard
from edge_tui.tui.lessons.facts import Scene

if TYPE_CHECKING:
    from edge_tui.tui.widgets.curve import Curve
    from edge_tui.tui.widgets.inspector import Inspector
    from edge_tui.tui.widgets.parameters import ParameterTable
    from edge_tui.tui.widgets.token_pane import TokenPane


def scene_of(
    pane: TokenPane, inspector: Inspector, curve: Curve, table: ParameterTable, pressing: bool
) -> Scene:
    """Describes what is on the screen; while keys are pressed for the user, also what hears them."""
    screen = pane.app.screen
    name = type(screen).__name__.removesuffix("Screen").lower()
    scene = Scene(name, inspector.display, curve.quantity, pane.cursor)
    if not pressing:
        return scene
    options = list(screen.query(OptionList)) if screen.is_modal else []
    listed = options[0].highlighted_option if options else None
    return scene._replace(
        scopes=scopes_heard(screen.focused or screen),
        rows=[row.key for row in table.run_params.rows()],
        row=table.row.key,
        typing=isinstance(screen.focused, (Input, TextArea)),
        typed=screen.focused.value if isinstance(screen.focused, Input) else "",
        listed=(listed.id or "") if listed is not None else "",
    )
