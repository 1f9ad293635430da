"""Asks an engine why tokens were taken: one question at a time, and of those that wait the newest."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from edge_tui.engine.events import Explained, Failed, Loaded, Unloaded

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Engine, Question

    Answer = Explained | Failed

_KEPT = 256
"""Answers that are kept."""


class Questions:
    """Keeps the answers by a key of the face that asks; a question with an answer is not put again.

    A cursor that moves on leaves its question behind: a slow engine is asked for the token on which the
    cursor rests, and for none that it has passed.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self._waiting: tuple[Hashable, Question] | None = None
        self._asked: tuple[int, Hashable] | None = None
        """Number and key of the question that the engine has."""

    def attach(self, engine: Engine) -> None:
        """Takes another engine, which counts its runs anew and knows no question to the one before."""
        self._engine, self._waiting, self._asked = engine, None, None
        self._answers.clear()

    def ask(self, key: Hashable, question: Question) -> None:
        """Asks a question, once the engine has answered the one before; the last one asked counts."""
        if not self.has(key):
            self._waiting = key, question
            self._put()

    def has(self, key: Hashable) -> bool:
        """Tells whether a question has been asked, or waits."""
        if (self._asked is not None and self._asked[1] == key) or key in self._answers:
            return True
        return self._waiting is not None and self._waiting[0] == key

    @property
    def pending(self) -> bool:
        """True while the engine has a question, or one waits."""
        return self._asked is not None or self._waiting is not None

    def leave(self) -> None:
        """Forgets the question that waits."""
        self._waiting = None

    def answer(self, key: Hashable) -> Answer | None:
        """Returns the answer to a question; None while there is none."""
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def apply(self, event: Event) -> bool:
        """Takes an answer; False for every other event."""
        if isinstance(event, Loaded | Unloaded):
            # What one model could not explain another can.
            self._drop_failures()
        if not isinstance(event, Explained | Failed) or self._asked is None:
            return False
        if (event.question if isinstance(event, Explained) else event.run) != self._asked[0]:
            return False
        self._answers[self._asked[1]] = event
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        self._asked = None
        self._put()
        return True

    def _put(self) -> None:
        if self._asked is None and self._waiting is not None and self._engine is not None:
            key, question = self._waiting
            self._waiting = None
            self._asked = self._engine.explain(question), key

    def _drop_failures(self) -> None:
        for key in [key for key, answer in self._answers.items() if isinstance(answer, Failed)]:
            del self._answers[key]
