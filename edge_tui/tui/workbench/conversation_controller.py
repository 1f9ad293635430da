"""Begins, changes and leaves conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_tui.engine.events import Failed, Finished, Started
from edge_tui.tui.conversation import Conversation
from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Message, Request
    from edge_tui.tui.session import Run, Session, TurnPosition
    from edge_tui.tui.workbench.ports import PromptField


class ConversationView(Messages, Protocol):
    """Shows a conversation and the answer of one of its turns."""

    def show_conversation(self, talk: Conversation | None, changing: int | None) -> None:
        """Shows the turns; `changing` is the number of the one that is edited."""

    def look_at(self, run: Run | None) -> None:
        """Shows the tokens of a run; None shows the newest one's."""

    def clear(self) -> bool:
        """Clears the tokens; False where there are none."""


class ConversationController:
    """Holds the conversation; `talk` is None while prompts are completed on their own.

    Args:
        session: The runs that answer.
        prompt: The message that is written.
        view: Shows the turns.
    """

    def __init__(self, session: Session, prompt: PromptField, view: ConversationView) -> None:
        self._session = session
        self._prompt = prompt
        self._view = view
        self._say = view.say
        self._changing: int | None = None
        self.talk: Conversation | None = None

    def _paint(self) -> None:
        self._view.show_conversation(self.talk, self._changing)

    # Beginning and ending.

    def toggle(self) -> None:
        """Begins a conversation, or ends it."""
        if self.talk is not None:
            self.talk = None
            self._paint()
            self._say("Each prompt is completed on its own again.")
        elif self._begin():
            self._say("A conversation: each prompt goes on from the answers before it; v ends it.", "good")

    def restart(self) -> None:
        """Begins another conversation."""
        if self._begin():
            self._session.viewed = None
            self._view.clear()
            self._say("Another conversation begins.", "good")

    def _begin(self) -> bool:
        """Begins an empty conversation; False, after a message, with a base model."""
        if why := self._refusal:
            self._say(f"{why}.", "warning")
            return False
        self.resume(Conversation())
        self._prompt.focus()
        return True

    def resume(self, talk: Conversation | None) -> None:
        """Switches to another conversation, or (None) to none."""
        self.talk, self._changing = talk, None
        self._paint()

    @property
    def _refusal(self) -> str:
        """The reason why the main model cannot talk; "" where it can, or none is loaded yet."""
        main = self._session.loaded.get("model")
        if main is None or main.chat:
            return ""
        return f"{main.name} is a base model, without a chat template to talk in"

    # Asking.

    def messages_for(self, text: str) -> str | tuple[Message, ...] | None:
        """Builds the messages for a prompt; None where a base model has no template for them."""
        if self.talk is None:
            return text
        if why := self._refusal:
            self._say(f"{why}; v completes prompts on their own.", "error")
            return None
        at, self._changing = self._changing, None
        messages = self.talk.ask(text, at)
        self._prompt.put("")
        self._paint()
        return messages

    def preview(self, text: str) -> str | tuple[Message, ...]:
        """Builds the messages for a prompt, and leaves the conversation as it is."""
        return text if self.talk is None else self.talk.preview(text, self._changing)

    def turn_position(self, request: Request) -> TurnPosition | None:
        """Finds the position of a run in the conversation, and removes the exchanges after it."""
        position = self.talk.begin(request.prompt) if self.talk is not None else None
        if position is not None:
            self._paint()
        return position

    def apply(self, event: Event) -> None:
        """Attaches a run that has started, and takes back a message whose run was refused."""
        talk, run = self.talk, self._session.run
        if talk is None or run is None or not isinstance(event, Started | Finished | Failed):
            return
        if isinstance(event, Started):
            talk.attach_run(run)
        elif isinstance(event, Failed) and run.id == event.run and not (run.started or self._prompt.text):
            self._prompt.put(talk.take_back(run.request.prompt))
        self._paint()

    def adopt(self, run: Run) -> None:
        """Makes a run the answer of its exchange; those after it are left behind."""
        position = self.talk.begin(run.request.prompt) if self.talk is not None else None
        if self.talk is None or position is None:
            return
        self.talk.attach_run(run)
        if (recorder := self._session.recorder) is not None:
            recorder.set_turn(run.id, position.conversation, position.turn, position.parent)
        self._paint()

    # Looking back.

    def choose(self, number: int) -> None:
        """Shows the answer of an exchange."""
        exchanges = self.talk.exchanges if self.talk is not None else []
        if number < len(exchanges):
            self._view.look_at(exchanges[number].run)

    def edit(self, number: int) -> None:
        """Puts the prompt of an exchange into the field, to go on from there with another one."""
        if self.talk is None:
            return
        self._changing = number
        self._prompt.put(self.talk.exchanges[number].prompt)
        self._paint()
        self._prompt.focus()
        later = len(self.talk.exchanges) - number - 1
        self._say("ctrl+j goes on from here" + ("; the history keeps what came after." if later else "."))

    def leave_edit(self) -> bool:
        """Leaves an earlier message as it was; False if none is being changed."""
        if self._changing is None:
            return False
        self._prompt.put("")
        self.resume(self.talk)
        return True
