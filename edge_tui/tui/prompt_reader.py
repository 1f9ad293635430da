"""Builds the request that has the model read a prompt, and says how far that is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edge_tui.engine.port import Request
from edge_tui.transcript.kept_tokens import with_kept
from edge_tui.transcript.text_score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.engine.events import PromptRead
    from edge_tui.engine.port import Message
    from edge_tui.tui.readings import Reading
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session

_HINT = 70
"""Cells of the keys in the narrowest terminal with all of them."""


class Status(NamedTuple):
    """Describes a reading that has nothing to show yet, in a sentence, and whether it has failed."""

    sentence: str
    failed: bool = False


class PromptReader:
    """Reads the prompt as it stands, with what the next run would have around it; or a text on its own.

    Args:
        session: Reads.
        run_params: Values of the next request.
        messages: Gives the prompt as it stands, with the turns before it in a conversation.

    Attributes:
        text: A text that is scored in place of the prompt; None reads the prompt.
        raw: True leaves the chat template out.
        with_system: False leaves the system prompt out.
        with_answer: True adds the answer on the screen to its prompt.
    """

    def __init__(
        self, session: Session, run_params: RunParams, messages: Callable[[], str | tuple[Message, ...]]
    ) -> None:
        self.session = session
        self.run_params = run_params
        self._messages = messages
        self.text: str | None = None
        self.raw = False
        self.with_system = True
        self.with_answer = False

    def begin(self) -> None:
        """Goes back to the prompt as the next run would have it."""
        self.text, self.with_system, self.with_answer = None, True, False
        self.raw = self.run_params.chat is False and isinstance(self._messages(), str)

    def read(self) -> Reading:
        """Has the engine read what is chosen."""
        return self.session.readings.read(self.request())

    def request(self) -> Request:
        """Builds the request: the prompt, and one step of the strategy after it; of a text no step."""
        settings = self.run_params.settings
        if self.text is not None:
            return Request(
                self.text,
                strategy="greedy",
                chat=False,
                max_length=0,
                control_tokens=settings.control_tokens,
                prompt_logps=True,
            )
        if self.with_answer:
            request = self._answered()
        else:
            # A seed that is drawn for each run says nothing of the next one: any does.
            seed = None if self.run_params.seed is not None else 0
            request = self.run_params.request(self._messages(), seed=seed)
        settings_chat = None if request.chat is False else request.chat
        return replace(
            request,
            chat=False if self.raw else settings_chat,
            system=request.system if self.with_system else "",
            max_length=1,
            stop=(),
            prompt_logps=True,
        )

    def _answered(self) -> Request:
        """Builds the request that goes on from the answer on the screen."""
        run = self.session.current
        assert run is not None
        assert run.transcript is not None, "`refusal` says so"
        ids = run.transcript.ids()
        if ids and ids[-1] in run.transcript.started.end_ids:
            ids = ids[:-1]
        request = self.run_params.request(run.request.prompt, ids, run.seed)
        return with_kept(request, run.transcript, run.request, self.run_params.decoder)

    @property
    def refusal(self) -> str:
        """Says why the answer cannot be read; "" where it can."""
        run, loaded = self.session.current, self.session.main(self.run_params.decoder.name)
        if run is None or run.transcript is None or not len(run.transcript):
            return "There is no answer on the screen yet."
        if run.model and loaded is not None and loaded.name != run.model:
            return f"{run.model} wrote the answer on the screen: load it to read that."
        return ""

    @property
    def has_template(self) -> bool | None:
        """Tells whether the model that reads has a chat template; None while that is not known."""
        loaded = self.session.main(self.run_params.decoder.name)
        return None if loaded is None else loaded.chat

    def texts_of(self, ids: Sequence[int]) -> list[str]:
        """Decodes ids with the tokenizer of the model that has read last."""
        engine = self.session.engine
        return engine.decode(ids) if engine is not None else [""] * len(ids)

    def note(self, reading: Reading) -> str:
        """Names who takes the next token; "" where another seed takes another one."""
        decoder = self.run_params.decoder
        if decoder.takes_argmax or decoder.kind == "search":
            return f"{decoder.title} takes"
        seed = reading.started.seed if reading.started is not None else None
        known = self.run_params.seed is not None or self.with_answer
        return f"{decoder.title} with seed {seed} takes" if known else ""

    def title(self, read: PromptRead | None) -> str:
        """Names what is shown, with its length."""
        what = "score of a text" if self.text is not None else "what the model reads"
        if self.text is None and self.with_answer:
            what += " and wrote"
        if self.text is None and (self.raw or self.has_template is False):
            what += ", raw"
        if read is None:
            return what
        count = len(read.ids)
        whole = f"{what} · {count:,} token{'s' if count != 1 else ''}"
        own = read.roles.count("user")
        if self.text is not None or not read.roles or own == count:
            return whole
        return f"{whole} ({own:,} {'are' if own != 1 else 'is'} yours)"

    @property
    def hint(self) -> str:
        """Lists the keys."""
        keys = ["paste or ^o score", "←→ token", "esc leave"]
        if self.text is not None:
            keys.insert(0, "p the prompt")
        elif self.has_template is not False:
            if self.run_params.system and not self.raw:
                keys.insert(0, f"s system {'off' if self.with_system else 'on'}")
            keys.insert(0, f"c chat {'on' if self.raw else 'off'}")
        if self.text is None and not self.refusal:
            keys.insert(-3, f"w answer {'off' if self.with_answer else 'on'}")
        line = " · ".join(keys)
        return line if len(line) <= _HINT else line.replace("←→ token · ", "")

    def facts(self, read: PromptRead) -> str:
        """Sums up the surprise of the user's own tokens."""
        found = score(read, ("user",))
        if not found.tokens:
            return "Nothing of yours has a token before it: there is nothing to score."
        whose = "scored" if self.text is not None or not read.roles else "yours"
        return (
            f"{whose}: {found.tokens:,} token{'s' if found.tokens != 1 else ''} · {found.nats:,.2f} nats"
            f" · perplexity {found.perplexity:.4g} · {found.bits_per_byte:.3f} bits/byte"
        )

    def status(self, reading: Reading) -> Status | None:
        """Says why there is nothing to show yet; None where there is."""
        session = self.session
        if reading.failed is not None:
            return Status(reading.failed.message, failed=True)
        if reading.prompt is not None and not reading.active:
            return None
        if not reading.active:
            return Status("The reading was stopped.", failed=True)
        if session.engine is None or session.dead:
            return Status("The prompt is read as soon as the engine has started.")
        if session.busy:
            return Status("A run goes on: the prompt is read when it has ended.")
        if session.loading:
            return Status(f"{session.state()[0].capitalize()}, to read the prompt …")
        done, total = reading.read
        return Status(f"Reading {done:,} of {total:,} tokens …" if total else "Reading …")
