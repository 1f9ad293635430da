"""Asks why the tokens of two compared runs were taken: those under the cursors, and those at the parting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.events import Explained
from edge_tui.transcript.question import question_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edge_tui.engine.explanation import Explanation
    from edge_tui.tui.session import Run, Session

_LIVE = "The full reason comes when both runs have ended."
_DEAD = "The engine has stopped; this is what was recorded."


class PairReasons:
    """Keeps no answers of its own; the session's questions do.

    Args:
        session: The engine, and its answers.
        runs: Both runs.
    """

    def __init__(self, session: Session, runs: tuple[Run, Run]) -> None:
        self._session = session
        self._runs = runs

    def refusal(self) -> str:
        """Says why the engine cannot be asked; "" if it can."""
        if self._session.engine is None or self._session.dead:
            return _DEAD
        return _LIVE if any(run.active for run in self._runs) else ""

    def reason(
        self, side: int, index: int | None, ids: tuple[int, ...] = ()
    ) -> tuple[Explanation | None, str]:
        """Returns why a token was taken, or a sentence on why that is not known; neither while it is asked.

        Args:
            side: Number of the run.
            index: Position of the token; None for no token.
            ids: Tokens to tell of beside.
        """
        run, questions = self._runs[side], self._session.questions
        transcript = run.transcript
        if transcript is None or index is None or not 0 <= index < len(transcript):
            return None, ""
        if refusal := self.refusal():
            return None, refusal
        key: Hashable = (run.id, index, transcript.record_at(index), ids)
        answer = questions.answer(key)
        if isinstance(answer, Explained):
            return answer.explanation, ""
        if answer is not None:
            return None, answer.message
        if not questions.has(key):
            try:
                questions.ask(key, question_of(transcript, run.request, index, ids=ids))
            except UnknownStrategy:
                return None, f"There is no strategy {run.request.strategy!r} here any more."
        return None, ""
