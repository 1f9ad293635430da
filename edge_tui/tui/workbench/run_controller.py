"""Starts, continues, repeats and reopens runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from edge_tui.decoders.base import ParamError, numbers
from edge_tui.engine.events import Loaded, Unloaded
from edge_tui.history.reproduce import proposing_ended
from edge_tui.transcript.kept_tokens import with_kept
from edge_tui.tui import run_messages
from edge_tui.tui.stored_runs import conversation_of, run_of, values_of
from edge_tui.tui.workbench.controller import Controller
from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Request
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.conversation import Conversation
    from edge_tui.tui.run_params import ParamPatch
    from edge_tui.tui.session import Run, TurnPosition
    from edge_tui.tui.stored_runs import StoredTurns


class RunView(Messages, Protocol):
    """Shows runs, the newest one or an earlier one."""

    transcript: Transcript | None

    def title_of(self, strategy: str) -> str:
        """Returns the title of a strategy."""

    def show_model(self) -> None:
        """Names the model in the header."""

    def count_prompt(self) -> None:
        """Writes the prompt's length below it."""

    def refuse(self, key: str, message: str) -> None:
        """Shows at a value why it is refused."""

    def follow(self) -> None:
        """Goes to the newest run's tokens."""

    def look_at(self, run: Run | None) -> None:
        """Shows the tokens of a run; None shows the newest one's."""

    def focus_tokens(self) -> None:
        """Gives the tokens the focus."""


class Turns(Protocol):
    """Holds the conversation that runs belong to."""

    def turn_position(self, request: Request) -> TurnPosition | None:
        """Finds the position of a run in the conversation; None outside one."""

    def resume(self, talk: Conversation | None) -> None:
        """Switches to another conversation, or (None) to none."""


@dataclass(eq=False)
class RunController(Controller[RunView]):
    """Starts runs and says what becomes of them.

    Attributes:
        turns: The conversation.
        take_values: Takes the strategy and the values of a reopened run.
    """

    turns: Turns
    take_values: Callable[[str, ParamPatch], bool]

    def start(self, request: Request, previous: Transcript | None = None) -> None:
        """Runs a request, and shows it; a run in progress stops first.

        Args:
            request: The request.
            previous: The transcript that it continues.
        """
        session = self.session
        running = session.run is not None and session.run.active
        session.start(request, previous, self.turns.turn_position(request))
        if session.engine is None:
            self.say("Queued: the engine is starting.")
        elif session.loading:
            self.say("Queued: runs as soon as the model is loaded.")
        elif running:
            self.say("Queued: the run in progress is stopping.")
        self.view.follow()

    def repeat(self, seed: int | None = None) -> bool:
        """Runs the prompt on the screen again, with its own seed unless one is given; False without a run."""
        run = self.session.current
        if run is not None:
            seed = run.seed if seed is None else seed
            self.start(self.run_params.request(run.request.prompt, seed=seed))
        return run is not None

    def resume(self) -> None:
        """Goes on from where the run on the screen stopped."""
        run = self.session.current
        if run is None or run.transcript is None or not len(run.transcript):
            self.say("There is nothing to continue yet; ctrl+j runs the prompt.", "warning")
        elif run.active:
            self.say("It is still running.")
        elif run.finished is not None and run.finished.reason == "eos":
            self.say("The model ended its answer; g runs the prompt again with another seed.", "warning")
        else:
            self._continue(run, run.transcript.ids())

    def take_alternative(self, index: int, token_id: int) -> None:
        """Cuts the run before a token, puts another one there, and goes on."""
        run = self.session.current
        # The screen may be a moment behind: what was pointed at must be what is cut.
        if run is None or run.transcript is None or run.transcript is not self.view.transcript:
            return
        ids = run.transcript.ids(index + 1)
        if ids[index:] == (token_id,):
            self.say("This token is the one in the text; mark another one, and enter goes on from there.")
        else:
            self._continue(run, (*ids[:index], token_id))

    def _continue(self, run: Run, prefix: tuple[int, ...]) -> None:
        """Goes on from tokens of a run; refuses one of another model, whose ids are other tokens."""
        loaded = self.session.main(self.run_params.decoder.name)
        if run.model and loaded is not None and loaded.name != run.model:
            self.say(f"{run.model} wrote this: load it (m) to go on from its tokens.", "warning")
        else:
            request = self.run_params.request(run.request.prompt, prefix, run.seed)
            if run.transcript is not None:
                request = with_kept(request, run.transcript, run.request, self.run_params.decoder)
            self.start(request, run.transcript)

    def send_value(self, key: str) -> None:
        """Sends a changed value to the run in progress, where the parameter allows that."""
        run, engine, decoder = self.session.run, self.session.engine, self.run_params.decoder
        if run is None or engine is None or not run.active or run.request.strategy != decoder.name:
            return
        params = numbers(decoder.params)
        param = next((param for param in params if param.name == key and param.live), None)
        if param is None:
            return
        try:
            engine.set(run.id, key, self.run_params.value(param)[0])
        except ParamError as error:
            self.view.refuse(key, str(error))

    def apply(self, event: Event) -> None:
        """Says what the engine reports, and names another model."""
        if isinstance(event, Loaded | Unloaded):
            self.view.show_model()
            self.view.count_prompt()
        if message := run_messages.message_of(event, self.session, self.view.title_of):
            self.say(*message)

    def reopen(self, turns: StoredTurns, again: bool) -> None:
        """Shows a stored run as it was, with its settings; or runs its prompt again with them.

        Args:
            turns: The run, and those before it in its conversation.
            again: True runs its prompt again.
        """
        session, (stored, *_) = self.session, turns[0]
        running = session.run
        if running is not None and running.uid == stored.entry.uid and running.active and not again:
            self.view.look_at(running)
            self.view.focus_tokens()
            self.say("This is the run in progress.")
            return
        self.take_values(stored.entry.strategy, values_of(stored, at_end=not again))
        loaded = session.loaded.get("model")
        other = loaded.name if loaded is not None and stored.model not in ("", loaded.name) else ""
        talk = conversation_of(turns)
        if not again:
            self.view.look_at(talk.exchanges[-1].run if talk is not None else run_of(*turns[0]))
        self.turns.resume(talk)
        if talk is None:
            self.prompt.put(stored.prompt)
        if again:
            seed = stored.started.seed if stored.started is not None else stored.request.seed
            sources = dict.fromkeys(stored.request.sources, f"run {stored.entry.id}")
            fresh = replace(
                stored.request,
                prefix=(),
                prefix_logps=(),
                prefix_values=(),
                proposing_ends=proposing_ended(stored),
            )
            self.start(replace(fresh, seed=seed, sources=sources))
            if other:
                self.say(f"It was {stored.model} then; it is {other} now.", "warning")
            return
        self.view.focus_tokens()
        ends = "it ended by itself; g runs its prompt again" if stored.entry.reason == "eos" else "c goes on"
        sentence = f"Opened with its settings: {ends}."
        if other:
            sentence = f"Written by {stored.model}; load that with m to go on from its last token."
        if session.busy:
            sentence = f"The run in progress goes on: o leads back to it. {sentence}"
        self.say(sentence, "warning" if other else "good")
