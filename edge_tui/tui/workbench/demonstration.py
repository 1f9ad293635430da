"""Does a step of a lesson for the learner: presses its keys one by one, slowly enough to be seen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from edge_tui.tui.lessons.facts import token_facts
from edge_tui.tui.lessons.lesson import Step
from edge_tui.tui.lessons.presses import AGAIN, next_press

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.tui.lessons.facts import Scene
    from edge_tui.tui.lessons.lesson import Fact
    from edge_tui.tui.session import Session

_SEEDS = 3
"""Seeds that are tried for a token."""


class Keys(Protocol):
    """Presses the user's keys."""

    @property
    def typed(self) -> int:
        """Number of keys that the user has pressed."""

    @property
    def busy(self) -> bool:
        """True while a key has not taken effect yet."""

    def text(self, action: str) -> str:
        """Writes the key of an action."""

    def press(self, action: str) -> None:
        """Presses the key of an action."""


@dataclass(eq=False)
class Demonstration:
    """Presses the keys of one step.

    Attributes:
        session: Engine and runs.
        keys: Presses keys.
        pause: Seconds between two keys; a third of it where a key repeats.
        patience: Seconds without a change after which the step is given up.
        clock: Monotonic seconds.
    """

    session: Session
    keys: Keys
    pause: float = 0.15
    patience: float = 3.0
    clock: Callable[[], float] = time.monotonic
    _step: Step | None = None
    _pressed: list[str] = field(default_factory=list)
    _typed: int = 0
    _seen: object = None
    _changed: float = 0.0
    _last: float = 0.0
    _token: int | None = None
    _round: bool = False
    """True once the walk came to an end of the text, and goes through all of it from its beginning."""
    _there: tuple[object, int, bool] = (None, 0, False)

    @property
    def step(self) -> Step | None:
        """The step that is being done, None for none."""
        return self._step

    @property
    def pressed(self) -> str:
        """The keys so far, as the help writes them; "→ ×5" for one that repeats."""
        counted = (
            (key, len(list(repeated))) for key, repeated in groupby(map(self.keys.text, self._pressed))
        )
        return ", ".join(key + (f" ×{count}" if count > 1 else "") for key, count in counted)

    def begin(self, step: Step) -> None:
        """Begins with a step."""
        self._step, self._typed, self._seen = step, self.keys.typed, None
        self._changed = self._last = self.clock()
        self._pressed.clear()
        self._token, self._round, self._there = None, False, (None, 0, False)

    def end(self) -> None:
        """Ends; the step is done, or is the learner's again."""
        self._step = None

    def advance(
        self, found: Mapping[str, Fact], scene: Scene, strategies: Sequence[str], gone: bool
    ) -> str | None:
        """Presses the next key once the last one was seen.

        Args:
            found: What is true now.
            scene: The screen.
            strategies: Names in the order of their digits.
            gone: True once the cursor is where the step wants it.

        Returns:
            None while this goes on; the sentence that says why it has ended, "" where the learner ended it.
        """
        step, now = self._step, self.clock()
        if step is None or self.keys.busy:
            return None
        if self.keys.typed != self._typed:
            return ""
        busy = self.session.busy or self.session.loading
        if self._is_news(found, scene) or busy:
            self._changed = now
        elif now - self._changed > self.patience:
            return "Show me comes no further here."
        if self.session.waiting or self.session.loading:
            return None
        press = self._next(step, found, scene, strategies, gone)
        if press is None or now - self._last < (self.pause / 3 if self._is_again(press) else self.pause):
            return None
        if press == AGAIN and self._pressed.count(AGAIN) >= _SEEDS:
            return "The text has no such token, with other seeds neither."
        self._last = now
        self._pressed.append(press)
        self.keys.press(press)
        return None

    def _is_news(self, found: Mapping[str, Fact], scene: Scene) -> bool:
        seen = (dict(found), scene)
        news, self._seen = seen != self._seen, seen
        return news

    def _is_again(self, press: str) -> bool:
        return self._pressed[-1:] == [press]

    def _next(
        self, step: Step, found: Mapping[str, Fact], scene: Scene, strategies: Sequence[str], gone: bool
    ) -> str | None:
        if step.go and not gone:
            # The workbench puts the cursor there, once there is nothing else on it.
            step = Step(step.text, {name: fact for name, fact in step.done.items() if name == "run"})
        press = next_press(
            step, found, scene, strategies, decoding=self.session.busy, there=self._is_there(step)
        )
        if press != f"tokens.{step.walk}":
            return press
        if self._round:
            return "tokens.cursor_right"
        stays = self._is_again(press) and scene.token == self._token
        starts = scene.token is None and step.walk == "cursor_right"
        self._token, self._round = scene.token, stays
        return "tokens.cursor_first" if stays or starts else press

    def _is_there(self, step: Step) -> bool:
        """Tells whether the text has a token that the step asks for."""
        run = self.session.current
        if run is None or run.transcript is None:
            return False
        text, count = run.transcript, len(run.transcript)
        if self._there[:2] != (text, count):
            wanted = {name: fact for name, fact in step.done.items() if name.startswith("token.")}
            only = Step("", wanted)
            there = any(not only.missing(token_facts(text, index)) for index in range(count))
            self._there = text, count, there
        return self._there[2]
