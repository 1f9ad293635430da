"""The helpers with which tests read a screen."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import Input

from tests.tui.rendered import is_open, until


class Question(ModalScreen[None]):
    def compose(self) -> ComposeResult:
        yield Input()


async def test_a_screen_is_open_when_its_widgets_can_be_queried() -> None:
    app = App[None]()
    async with app.run_test() as pilot:
        app.push_screen(Question())
        assert isinstance(app.screen, Question)
        assert not is_open(app, Question)
        with pytest.raises(NoMatches):
            app.screen.query_one(Input)
        await until(pilot, lambda: is_open(app, Question))
        app.screen.query_one(Input)
        app.pop_screen()
        assert not is_open(app, Question)
