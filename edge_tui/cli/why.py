"""Asks an engine why tokens of a run were taken, for `edge-tui run --explain` and `edge-tui history why`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edge_tui.cli.messages import fail
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine import events
from edge_tui.errors import UsageError
from edge_tui.transcript.question import question_of
from edge_tui.transcript.record_explanation import explanation_of_record
from edge_tui.transcript.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from edge_tui.engine.events import Event
    from edge_tui.engine.explanation import Explanation
    from edge_tui.engine.port import Engine, Question, Request

POLL_SECONDS = 0.002

Tokens = Literal["all", "last"] | tuple[int, ...]
"""Tokens of each answer: all of them, the last, or those of these numbers."""


def read_tokens(text: str) -> Tokens | None:
    """Reads what `--explain` takes: `all`, `last`, or numbers with commas; None for anything else."""
    if text in ("all", "last"):
        return "all" if text == "all" else "last"
    parts = [part.strip() for part in text.split(",")]
    return tuple(map(int, parts)) if all(part.isdecimal() and len(part) < 10 for part in parts) else None


def check_numbers(numbers: Iterable[int], length: int) -> None:
    """Refuses numbers of tokens that an answer does not have.

    Raises:
        UsageError: it names the number, and those there are.
    """
    for number in numbers:
        if not 0 <= number < length:
            there = f"its tokens are 0 to {length - 1}" if length else "it has no token"
            raise UsageError(f"token {number} was asked for, but {there}.")


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks an engine one question after the other.

    Args:
        engine: The engine; nothing else runs on it.
        transcript: The run, which has ended.
        request: That of the run.
        decode: Texts of ids.
        stopped: True takes questions back.
        model: Name of the model that wrote the run; "" takes the one in memory for it.
        vocab: Number of its tokens; 0 where that is not known.
        handle: Takes events that answer no question.
    """

    engine: Engine
    transcript: Transcript
    request: Request
    decode: Callable[[Sequence[int]], list[str]]
    stopped: Callable[[], bool] = lambda: False
    model: str = ""
    vocab: int = 0
    handle: Callable[[Event], None] = lambda event: None

    def places(self, tokens: Tokens, rows: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yields row and number of each token.

        Raises:
            UsageError: there is no such row, or an answer has no such token.
        """
        for row in rows:
            try:
                path = self.transcript.sample(row)
            except IndexError as error:
                raise UsageError(str(error)) from error
            first, end = path.started.prefix_tokens, len(path)
            if isinstance(tokens, tuple):
                check_numbers(tokens, end)
                yield from ((row, index) for index in tokens)
            else:
                yield from ((row, i) for i in range(max(first, end - 1) if tokens == "last" else first, end))

    def explain(self, row: int, index: int) -> Explanation | None:
        """Explains a token, by its record alone where the engine cannot; None if it was taken back."""
        try:
            question = question_of(self.transcript, self.request, index, row)
        except UnknownStrategy as error:
            return self.of_record(row, index, str(error))
        answer = self.ask(replace(question, model=self.model))
        if isinstance(answer, events.Explained):
            return answer.explanation
        return None if answer.code == "cancelled" else self.of_record(row, index, answer.message)

    def of_record(self, row: int, index: int, reason: str) -> Explanation:
        """Tells what was recorded with a token, with the reason why there is no more."""
        return explanation_of_record(self.transcript.sample(row), index, self.decode, reason, self.vocab)

    def ask(self, question: Question) -> events.Explained | events.Failed:
        """Waits for an answer."""
        number, taken_back = self.engine.explain(question), False
        while True:
            for event in self.engine.poll():
                if isinstance(event, events.Explained) and event.question == number:
                    return event
                if isinstance(event, events.Failed) and event.run == number:
                    return event
                if isinstance(event, events.Died):
                    return events.Failed(event.message)
                self.handle(event)
            if self.stopped() and not taken_back:
                self.engine.cancel(number)
                taken_back = True
            time.sleep(POLL_SECONDS)


class RunReasons:
    """Keeps the tokens of a run as they come, and explains some of them once it has ended.

    Args:
        engine: The engine that decodes it.
        request: That of the run.
        tokens: Tokens to explain.
        write: Takes an explanation, its row, its token's number, and whether single tokens were asked for.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        tokens: Tokens,
        write: Callable[[Explanation, int, int, bool], None],
    ) -> None:
        self._engine, self._request, self._tokens, self._write = engine, request, tokens, write
        self._transcript: Transcript | None = None

    def apply(self, event: Event) -> None:
        """Adds an event of the run."""
        if isinstance(event, events.Started):
            self._transcript = Transcript(event)
        elif self._transcript is not None:
            self._transcript.apply(event)

    def write(self, stopped: Callable[[], bool]) -> int:
        """Explains the tokens; returns the exit status: 1 where one could not be computed or is not there."""
        if self._transcript is None:
            return 0
        status = 0
        asker = Asker(self._engine, self._transcript, self._request, self._engine.decode, stopped)
        try:
            for row, index in asker.places(self._tokens, range(self._request.samples)):
                if (why := asker.explain(row, index)) is None:
                    return status
                self._write(why, row, index, self._tokens != "all")
                status = max(status, int(why.exactness == "record"))
        except UsageError as error:
            return fail(f"--explain: {error}")
        return status
