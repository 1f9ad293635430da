"""Decodes the prompt on the screen under a second strategy as well, with the same seed."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge_tui import decoders
from edge_tui.tui.workbench.controller import Controller
from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.port import Request
    from edge_tui.tui.screens.compare import Taken
    from edge_tui.tui.session import Run


class DuelView(Messages, Protocol):
    """Shows the run that is left when a duel ends."""

    def look_at(self, run: Run | None) -> None:
        """Shows the tokens of a run; None shows the newest one's."""

    def look_at_token(self, index: int) -> None:
        """Puts the cursor on a token of the run on the screen."""


class Strategies(Protocol):
    """Chooses strategies."""

    def refusal(self, decoder: Decoder) -> str:
        """Returns the reason against a strategy; "" where there is none."""

    def switch(self, name: str, keep_values: bool = True) -> str:
        """Takes another strategy and runs nothing."""


class Answers(Protocol):
    """Holds the conversation that runs belong to."""

    def adopt(self, run: Run) -> None:
        """Makes a run the answer of its turn."""


@dataclass(eq=False)
class DuelController(Controller[DuelView]):
    """Begins duels, and goes on with the run that is taken.

    Attributes:
        strategies: The strategies.
        answers: The conversation.
        run_prompt: Runs the prompt, where nothing has been run yet.
    """

    strategies: Strategies
    answers: Answers
    run_prompt: Callable[[], None]

    def begin(self, name: str) -> tuple[Run, Run] | None:
        """Runs the prompt on the screen under another strategy too.

        A run that goes on, and the second, are decoded in turn; one that has ended stays as it is.

        Returns:
            Both runs; None after a message where there is nothing to run.
        """
        decoder, session = decoders.find(name), self.session
        if why := self.strategies.refusal(decoder):
            self.say(why, "warning")
            return None
        if session.current is None and self.prompt.text.strip():
            self.run_prompt()
        first = session.current
        if session.waiting or session.engine is None:
            self.say("The run has not begun yet: | again once it has.", "warning")
            return None
        if first is None:
            self.say("There is no prompt to run under two strategies.", "warning")
            return None
        second = session.start_beside(first, self._request(first, decoder))
        return (first, second) if second is not None else None

    def _request(self, first: Run, decoder: Decoder) -> Request:
        """Builds the request that differs from that of a run by its strategy and the values of that."""
        params = copy(self.run_params)
        params.decoder = decoder
        own = params.request(first.request.prompt, seed=first.seed)
        return replace(
            first.request,
            strategy=own.strategy,
            values=own.values,
            sources=own.sources,
            mode=own.mode,
            seed=own.seed,
            prefix=(),
            prefix_logps=(),
            prefix_values=(),
            proposing_ends=None,
            samples=1,
        )

    def end(self, taken: Taken | None) -> None:
        """Goes on with the run that was taken, or with the first."""
        session, second = self.session, self.session.beside
        session.end_beside(taken.run if taken is not None else None)
        if taken is None:
            if session.recorder is not None:
                self.say("The history (o) has the second run.")
            return
        if taken.run is second:
            self.strategies.switch(taken.run.request.strategy, keep_values=False)
            self.answers.adopt(taken.run)
            self.view.look_at(taken.run)
        if taken.index is not None:
            self.view.look_at_token(taken.index)
