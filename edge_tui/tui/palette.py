"""Offers the registry's actions and the strategies in the command palette."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Provider

from edge_tui.tui.actions import ACTIONS
from edge_tui.tui.workbench.screen import WorkbenchScreen
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.command import Hits


class ActionsProvider(Provider):
    """Lists every action of the registry, and on the workbench every strategy."""

    def _offers(self) -> Iterable[tuple[str, str, Callable[[], object]]]:
        for action in ACTIONS:
            if action.in_palette:
                keys = f" ({action.key_text})" if action.key_text else ""
                target = f"app.{action.id}" if action.scope == "app" else f"screen.{action.id}"
                yield action.label, action.help + keys, partial(self.app.run_action, target)
        if isinstance(self.screen, WorkbenchScreen):
            for decoder in self.screen.strategies.decoders:
                title = f"strategy: {one_line(decoder.title)}"
                yield title, sanitise(decoder.summary), partial(self.screen.strategies.choose, decoder.name)

    async def discover(self) -> Hits:
        """Yields every action and strategy, before anything is typed."""
        for label, help_text, command in self._offers():
            yield DiscoveryHit(label, command, help=help_text)

    async def search(self, query: str) -> Hits:
        """Yields the actions and strategies whose label or help matches."""
        from edge_tui.tui.screens.filter_list import has_words

        matcher = self.matcher(query)
        for label, help_text, command in self._offers():
            score = max(matcher.match(label), 0.5 * has_words(help_text, query))
            if score > 0:
                yield Hit(score, matcher.highlight(label), command, help=help_text)
