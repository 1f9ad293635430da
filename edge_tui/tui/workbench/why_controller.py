"""Asks the engine why the token under the cursor was taken, and keeps the list of watched tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.events import Explained, Loaded
from edge_tui.engine.port import Question
from edge_tui.errors import RequestError
from edge_tui.history import explain_limits
from edge_tui.transcript.kept_tokens import with_kept
from edge_tui.transcript.question import question_of
from edge_tui.transcript.values_at import strategy_of
from edge_tui.tui.workbench.ports import Messages
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from edge_tui.engine.events import Event
    from edge_tui.engine.explanation import Explanation
    from edge_tui.history.runs import StoredRun
    from edge_tui.transcript.token_table import TokenView
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Run, Session

_LIVE = (
    "The full reason comes when the run has ended. Until then a live parameter that you turn changes the run."
)
_DEAD = "The engine has stopped; this is what was recorded."


class WhyView(Messages, Protocol):
    """Shows why a token was taken."""

    @property
    def inspected(self) -> tuple[Transcript, int] | None:
        """The token in the inspector; None where it shows none, or is closed."""

    def show_reason(self, why: Explanation | None, note: str, watched: Collection[int]) -> None:
        """Shows the reason, or (None) the sentence that says why there is none."""


@dataclass(eq=False)
class WhyController:
    """Asks for the inspected token, and for what other values would make of it.

    Attributes:
        session: Engine and runs.
        run_params: Values of the next request.
        view: Shows the answer.
    """

    session: Session
    run_params: RunParams
    view: WhyView
    watched: dict[int, str] = field(default_factory=dict)
    """Texts of the tokens that every ladder lists, by id."""
    _unread: dict[str, None] = field(default_factory=dict)
    """Texts to watch whose tokens are not known yet, in order."""
    _shown: object = None
    _model: str = ""
    _compared: tuple[Explanation, Explanation] | None = None
    """The newest answer about a stored run, and what became of it."""

    def follow(self) -> None:
        """Shows the reason of the inspected token once it is known, and asks for it before."""
        self._list_unread()
        inspected = self.view.inspected
        if inspected is None:
            self.session.questions.leave()
            self._shown = None
            return
        why, note, known = self.reason(*inspected)
        state = (inspected[0], inspected[1], id(why), note)
        if known and state != self._shown:
            self._shown = state
            self.view.show_reason(why, note, self.watched)

    def reason(self, transcript: Transcript, index: int) -> tuple[Explanation | None, str, bool]:
        """Returns the reason of a token, or a sentence on why there is none; False while neither is known."""
        run = self._run_of(transcript)
        if note := self._refusal(run):
            return None, note, True
        assert run is not None
        ids = tuple(self.watched)
        key = (run.id, index, transcript.record_at(index), ids)
        try:
            why, note = self._answer(key, lambda: question_of(transcript, run.request, index, ids=ids))
        except UnknownStrategy:
            return None, f"There is no strategy {run.request.strategy!r} here any more.", True
        if why is not None and run.stored is not None:
            why = self._compare(why, run.stored, transcript.token(index))
        return why, note, why is not None or bool(note)

    def turned(self, transcript: Transcript, index: int, was: Explanation) -> tuple[Explanation | None, str]:
        """Returns what the values of the next request make of a token; (None, "") while that is not known."""
        run = self._run_of(transcript)
        if note := self._refusal(run):
            return None, note
        assert run is not None
        decoder = self.run_params.decoder
        ids = transcript.ids(index + 1)
        request = self.run_params.request(run.request.prompt, ids[:index], run.seed)
        request = replace(request, ids=run.request.ids, chat=run.request.chat, system=run.request.system)
        values = tuple(sorted(request.values.items(), key=lambda item: item[0]))
        key = ("turned", run.id, index, ids[index], decoder.name, request.mode, values)
        listed = tuple(each.id for each in was.candidates)

        def question() -> Question:
            return Question(with_kept(request, transcript, run.request, decoder), ids[index], listed)

        return self._answer(key, question)

    def watch(self, text: str) -> None:
        """Lists the token of a text in every ladder from now on; of several tokens the first."""
        self._unread[text] = None
        self.follow()
        if text in self._unread:
            self.view.say(f"{visible(text)} is listed as soon as the model's tokenizer has read it.")

    def unwatch(self, token: int) -> None:
        """Lists a token no more where it is not among the best."""
        if (name := self.watched.pop(token, None)) is None:
            self.view.say("This token is not watched; + watches one.")
        else:
            self.view.say(f"{visible(name)} is watched no more.")
            self.follow()

    def apply(self, event: Event) -> None:
        """Empties the list where another model is loaded: its ids are other tokens."""
        if isinstance(event, Loaded) and event.role == "model" and event.name != self._model:
            self._model = event.name
            self.watched.clear()

    def _list_unread(self) -> None:
        """Lists the tokens of the texts that the engine has read by now."""
        engine = self.session.engine
        for text in tuple(self._unread):
            try:
                found = engine.ids(text) if engine is not None else None
            except RequestError as error:
                self.view.say(str(error), "warning")
            else:
                if found is None:
                    continue
                self._list(found)
            del self._unread[text]

    def _list(self, found: tuple[int, ...]) -> None:
        """Lists the first of some tokens in every ladder."""
        if not found:
            self.view.say("That is no token.", "warning")
            return
        name = next(iter(self.session.texts_of(found[:1])), "")
        self.watched[found[0]] = name
        more = f", the first of {len(found)} tokens" if len(found) > 1 else ""
        self.view.say(f"{visible(name)} is listed at every token{more}.", "good")

    def _run_of(self, transcript: Transcript) -> Run | None:
        run = self.session.current
        return run if run is not None and run.transcript is transcript else None

    def _compare(self, why: Explanation, stored: StoredRun, token: TokenView) -> Explanation:
        """Adds what is not as it was when a stored run was written; the same object for the same answer."""
        if self._compared is None or self._compared[0] is not why:
            self._compared = why, explain_limits.compare(why, stored, token, self.session.loaded)
        return self._compared[1]

    def _refusal(self, run: Run | None) -> str:
        """Says why the engine cannot be asked; "" if it can."""
        if self.session.dead or self.session.engine is None:
            return _DEAD
        if run is None or run.active:
            return _LIVE
        if run.stored is not None:
            return explain_limits.refusal(run.stored)
        now = strategy_of(run.transcript) if run.transcript is not None else None
        if now is not None and run.decoder is not None and now is not run.decoder:
            return f"{now.title} has changed since this run, so it may decide otherwise now."
        return ""

    def _answer(self, key: Hashable, question: Callable[[], Question]) -> tuple[Explanation | None, str]:
        questions = self.session.questions
        answer = questions.answer(key)
        if answer is None:
            if not questions.has(key):
                questions.ask(key, question())
            return None, ""
        return (answer.explanation, "") if isinstance(answer, Explained) else (None, answer.message)
