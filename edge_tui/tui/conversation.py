"""Holds a conversation: prompts and the runs that answered them. No widget in here."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_tui.engine.port import Message
from edge_tui.transcript.thinking import without_thoughts
from edge_tui.tui.session import TurnPosition

if TYPE_CHECKING:
    from edge_tui.tui.session import Run


@dataclass(slots=True)
class Exchange:
    """Holds a prompt and its answer.

    Attributes:
        prompt: The user's message.
        run: The newest run that answered it; None before one has begun.
        stored_answer: The answer's text where its run is not at hand.
    """

    prompt: str
    run: Run | None = None
    stored_answer: str = ""

    @property
    def answer(self) -> str:
        """The answer as the model wrote it, thoughts included; "" while there is none."""
        transcript = self.run.transcript if self.run is not None else None
        if transcript is None:
            return self.stored_answer
        # What the template wrote before the answer belongs to it when it is read again.
        return ("<think>\n" if transcript.started.thinking else "") + transcript.text

    @property
    def visible_answer(self) -> str:
        """The answer without its thoughts."""
        return without_thoughts(self.answer).strip()

    @property
    def tokens(self) -> int | None:
        """Length of the answer; None where its tokens are not at hand."""
        if self.run is None or self.run.transcript is None:
            return None
        return len(self.run.transcript)


@dataclass(slots=True)
class Conversation:
    """Holds the exchanges in their order.

    Attributes:
        uid: Name that its runs share in the history.
        exchanges: The newest last.
    """

    uid: str = field(default_factory=lambda: secrets.token_hex(8))
    exchanges: list[Exchange] = field(default_factory=list)

    def ask(self, text: str, at: int | None = None) -> tuple[Message, ...]:
        """Adds a prompt, or puts it in the place of an earlier one.

        What came after an earlier one is left behind; the history still has it. So is a newest prompt that
        was never answered.

        Args:
            text: The prompt.
            at: Number of the exchange to go on from; a new one when None.

        Returns:
            What the model is to read.
        """
        at = self._place(at)
        del self.exchanges[at:]
        self.exchanges.append(Exchange(text))
        return self.messages(at)

    def preview(self, text: str, at: int | None = None) -> tuple[Message, ...]:
        """Builds what `ask` would return, and leaves everything as it is."""
        return (*self._before(self._place(at)), Message("user", text))

    def _place(self, at: int | None) -> int:
        """Finds the number of the exchange that a prompt begins."""
        if at is not None:
            return at
        at = len(self.exchanges)
        return at - 1 if at and not self.exchanges[-1].answer else at

    def _before(self, at: int) -> list[Message]:
        """Builds the messages of the exchanges before one."""
        messages: list[Message] = []
        for exchange in self.exchanges[:at]:
            messages += [Message("user", exchange.prompt), Message("assistant", exchange.answer)]
        return messages

    def messages(self, at: int) -> tuple[Message, ...]:
        """Builds the messages up to the prompt of an exchange."""
        return (*self._before(at), Message("user", self.exchanges[at].prompt))

    def begin(self, prompt: str | tuple[Message, ...]) -> TurnPosition | None:
        """Removes the exchanges after a prompt that a run is about to answer (again).

        Args:
            prompt: The run's, as `Request` has it.

        Returns:
            Its place; None if it belongs to no exchange.
        """
        at = self.number(prompt)
        if at is None:
            return None
        del self.exchanges[at + 1 :]
        before = self.exchanges[at - 1].run if at else None
        return TurnPosition(self.uid, at, before.uid if before is not None else "")

    def take_back(self, prompt: str | tuple[Message, ...]) -> str:
        """Removes the newest prompt if a run was to answer it and has not begun; returns its text, or ""."""
        at = self.number(prompt)
        if at is None or at < len(self.exchanges) - 1 or self.exchanges[at].answer:
            return ""
        return self.exchanges.pop().prompt

    def number(self, prompt: str | tuple[Message, ...]) -> int | None:
        """Finds the exchange whose messages are this prompt."""
        if isinstance(prompt, str):
            return None
        at = sum(turn.role == "user" for turn in prompt) - 1
        return at if 0 <= at < len(self.exchanges) and self.messages(at) == prompt else None

    def number_of(self, run: Run | None) -> int:
        """Finds the exchange that a run answered; the newest one where it answered none."""
        numbers = [number for number, each in enumerate(self.exchanges) if each.run is run]
        return numbers[0] if numbers and run is not None else max(len(self.exchanges) - 1, 0)

    def attach_run(self, run: Run) -> None:
        """Attaches a run that has started to its exchange."""
        at = self.number(run.request.prompt)
        if at is not None:
            self.exchanges[at].run = run


def of_messages(messages: tuple[Message, ...], uid: str = "") -> Conversation:
    """Builds the conversation that led to a stored run; system prompts are not part of it."""
    talk = Conversation(uid) if uid else Conversation()
    for turn in messages:
        if turn.role == "user":
            talk.exchanges.append(Exchange(turn.content))
        elif turn.role == "assistant" and talk.exchanges:
            talk.exchanges[-1].stored_answer = turn.content
    return talk
