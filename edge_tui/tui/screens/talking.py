"""Runs the conversation on the main screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui.conversation import Conversation
from edge_tui.tui.screens.view import View
from edge_tui.tui.services import services

if TYPE_CHECKING:
    from edge_tui.engine.events import Event, Failed, Started
    from edge_tui.engine.port import Message, Request
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.session import Run, TurnPosition
    from edge_tui.tui.widgets.turns import Turns

BASE_MODEL = "is a base model, without a chat template to talk in"


class Talking(View):
    """Holds the conversation; `talk` is None while prompts are completed on their own."""

    talk: Conversation | None = None
    _changing: int | None = None
    """Number of the exchange whose prompt is being changed."""

    def _start(self, request: Request, previous: Transcript | None = None) -> None:
        raise NotImplementedError

    # Beginning and ending.

    def action_conversation(self) -> None:
        if self.talk is not None:
            self.talk = None
            self._paint_talk()
            self.say("Each prompt is completed on its own again.")
        elif self._is_base_model:
            self.say(f"{services(self).model_name} {BASE_MODEL}.", "warning")
        else:
            self.talk = Conversation()
            self._paint_talk()
            self.say("A conversation: each prompt goes on from the answers before it; v ends it.", "good")
            self.prompt.focus()

    def action_new_conversation(self) -> None:
        if self._is_base_model:
            self.say(f"{services(self).model_name} {BASE_MODEL}.", "warning")
            return
        self.talk = Conversation()
        self._changing = self.session.viewed = None
        self._cleared = self._shown
        self._show(None)
        self._paint_talk()
        self.say("Another conversation begins.", "good")
        self.prompt.focus()

    @property
    def _is_base_model(self) -> bool:
        """True where the main model is known to have no chat template."""
        main = self.session.loaded.get("model")
        return main is not None and not main.chat

    def _resume_talk(self, talk: Conversation | None) -> None:
        """Switches to another conversation, or (None) to none."""
        self.talk, self._changing = talk, None
        self._paint_talk()

    # Asking.

    def _messages_for(self, text: str) -> str | tuple[Message, ...] | None:
        """Builds the messages for a prompt; None where a base model has no template for them."""
        if self.talk is None:
            return text
        if self._is_base_model:
            self.say(f"{services(self).model_name} {BASE_MODEL}; v completes prompts on their own.", "error")
            return None
        at, self._changing = self._changing, None
        prompt_messages = self.talk.ask(text, at)
        self.prompt.put("")
        self._paint_talk()
        return prompt_messages

    def _turn_position(self, request: Request) -> TurnPosition | None:
        """Finds the position of a run in the conversation, and removes the exchanges after it."""
        place = self.talk.begin(request.prompt) if self.talk is not None else None
        if place is not None:
            self._paint_talk()
        return place

    def _started(self, event: Started) -> None:
        super()._started(event)
        run = self.session.run
        if self.talk is not None and run is not None:
            self.talk.attach_run(run)
            self._paint_talk()

    def _failed(self, event: Failed) -> None:
        super()._failed(event)
        run = self.session.run
        refused = run is not None and run.id == event.run and run.started is None
        if run is not None and refused and self.talk is not None and not self.prompt.text:
            self.prompt.put(self.talk.take_back(run.request.prompt))
            self._paint_talk()

    def _take(self, event: Event) -> None:
        super()._take(event)
        if self.talk is not None and getattr(event, "reason", None) is not None:
            self._paint_talk()

    # Looking.

    def _paint_talk(self) -> None:
        """Shows the turns and the prompt's title. Changes the layout only with a turn."""
        talk = self.talk
        self.set_class(talk is not None and bool(talk.exchanges), "-talking")
        if talk is not None:
            self.turns.limit = 10 if self.has_class("-tall") else 4
            self.turns.show(talk.exchanges, self._number(talk))
        changing = self._changing
        if talk is None:
            title, hint = "prompt", "Type a prompt, ctrl+j runs it"
        elif changing is not None:
            title, hint = f"message {changing + 1}, changed · esc leaves it", "What you say instead"
        else:
            title = f"message {len(talk.exchanges) + 1}"
            hint = "Type a message, ctrl+j sends it"
        self.prompt.border_title, self.prompt.placeholder = title, hint

    def _number(self, talk: Conversation) -> int:
        """Finds the exchange whose answer is shown."""
        shown = self.session.current
        numbers = [number for number, each in enumerate(talk.exchanges) if each.run is shown]
        return numbers[0] if numbers and shown is not None else max(len(talk.exchanges) - 1, 0)

    def action_focus_turns(self) -> None:
        if self.talk is None or not self.talk.exchanges:
            self.say("There is no conversation: v begins one.")
        else:
            self.turns.focus()

    def on_turns_chosen(self, event: Turns.Chosen) -> None:
        exchanges = self.talk.exchanges if self.talk is not None else []
        if event.number < len(exchanges):
            self.look_at(exchanges[event.number].run)

    def look_at(self, run: Run | None) -> None:
        """Shows another run than the newest one."""
        self.session.viewed = run if run is not self.session.run else None
        self._cleared = None
        self._show(run.transcript if run is not None else None)
        self._paint_gauge(self.gauge.sample)

    def on_turns_read(self) -> None:
        self.pane.focus()

    def on_turns_edit(self, event: Turns.Edit) -> None:
        if self.talk is None:
            return
        self._changing = event.number
        self.prompt.put(self.talk.exchanges[event.number].prompt)
        self._paint_talk()
        self.prompt.focus()
        later = len(self.talk.exchanges) - event.number - 1
        self.say("ctrl+j goes on from here" + ("; the history keeps what came after." if later else "."))

    def leave_change(self) -> bool:
        """Stops changing an earlier message; False if none is being changed."""
        if self._changing is None:
            return False
        self._changing = None
        self.prompt.put("")
        self._paint_talk()
        return True

    def action_fold(self) -> None:
        self.pane.folding = not self.pane.folding
        run = self.session.current
        hidden = run.transcript.thoughts.hidden_count if run is not None and run.transcript is not None else 0
        if self.pane.folding:
            self.say(f"Thoughts are folded: {hidden:,} tokens; ←→ in the pane still reach them.")
        else:
            self.say("Thoughts are shown.")
