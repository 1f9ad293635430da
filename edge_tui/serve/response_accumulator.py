"""What a generation has said, gathered from the engine's events. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_tui import decoders
from edge_tui.engine import events
from edge_tui.engine.events import FinishReason, TokenBatch

Alternatives = tuple[tuple[int, float], ...]
"""Token ids and log-probabilities (nats), best first."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as clients are told about it; log-probabilities in nats, under the model itself.

    Attributes:
        row: The sample it belongs to.
        id: Its id.
        text: The characters that it made certain.
        logp: Its log-probability; None for the first token of a prompt, which nothing predicts.
        top: The most likely tokens in its place.
    """

    row: int
    id: int
    text: str
    logp: float | None
    top: Alternatives


@dataclass(slots=True)
class Text:
    """One of a generation's answers.

    Attributes:
        parts: Its text so far, in pieces.
        tokens: Its tokens, if they are kept.
        count: How many tokens it has.
        reason: Why it ended.
        score: Of a search's answer.
    """

    parts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    count: int = 0
    reason: FinishReason = "cancelled"
    score: float | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Answer:
    """Folds a generation's events.

    Args:
        n: How many answers were asked for; a search may have found more.
        keep: Whether to keep tokens; text alone is kept always.
        top: How many alternatives of each token to read.
    """

    def __init__(self, n: int = 1, keep: bool = False, top: int = 0) -> None:
        self.started: events.Started | None = None
        self.finished: events.Finished | None = None
        self.prompt: events.PromptRead | None = None
        self.failed: events.Failed | None = None
        self.notices: list[str] = []
        self.texts: list[Text] = []
        self._n = n
        self._keep = keep
        self._top = top
        self._searches = False
        self._ends: frozenset[int] = frozenset()

    @property
    def streams(self) -> bool:
        """Whether what comes is certain at once; the hypotheses of a search are not."""
        return not self._searches

    @property
    def prompt_tokens(self) -> int:
        return self.started.prompt_tokens if self.started is not None else 0

    @property
    def new_tokens(self) -> int:
        """Tokens of all answers together."""
        return sum(text.count for text in self.texts)

    def feed(self, event: events.Event) -> Iterator[Token]:
        """Takes an event; yields the tokens that are certain with it."""
        match event:
            case events.Started():
                self.started = event
                self.notices += event.notices
                self._ends = frozenset(event.end_ids)
                self._searches = decoders.find(event.strategy).kind == "search"
                self.texts = [Text() for _ in range(1 if self._searches else event.rows)]
            case events.Noticed():
                self.notices.append(event.message)
            case events.PromptRead():
                self.prompt = event
            case TokenBatch():
                if not self._searches:
                    yield from self._take(event)
            case events.Finished():
                yield from self._finish(event)
            case events.Failed():
                self.failed = event
            case _:
                pass

    def _take(self, batch: TokenBatch) -> Iterator[Token]:
        for token in tokens_of(batch, self._top):
            text = self.texts[token.row]
            text.count += 1
            if token.id in self._ends:
                continue  # no part of the answer
            text.parts.append(token.text)
            if self._keep:
                text.tokens.append(token)
            yield token

    def _finish(self, event: events.Finished) -> Iterator[Token]:
        self.finished = event
        if event.ranked:
            self.texts = [
                Text([choice.text], count=len(choice.tokens), reason=event.reason, score=choice.score)
                for choice in event.ranked[: self._n]
            ]
            return
        for row, text in enumerate(self.texts):
            text.reason = event.reasons[row] if row < len(event.reasons) else event.reason
            if tail := event.tails[row] if row < len(event.tails) else "":
                text.parts.append(tail)
                # Belongs to the last token, which has left already: an unfinished character on its own.
                yield Token(row, -1, tail, None, ())


def tokens_of(batch: TokenBatch, top: int) -> Iterator[Token]:
    """A batch's tokens one by one, with so many alternatives each."""
    ids = batch.top_ids[:, :top].tolist() if top else [[]] * len(batch)
    logps = batch.top_logp[:, :top].tolist() if top else ids
    columns = (batch.row.tolist(), batch.id.tolist(), batch.text, batch.raw_logp.tolist(), ids, logps)
    for row, token, text, logp, others, values in zip(*columns, strict=True):
        yield Token(row, token, text, logp, _pairs(others, values))


def tokens_of_prompt(prompt: events.PromptRead, top: int) -> Iterator[Token]:
    """A prompt's tokens one by one; nothing predicts the first."""
    ids, logps = prompt.top_ids[:, :top].tolist(), prompt.top_logp[:, :top].tolist()
    columns = (prompt.ids, prompt.text, prompt.logp.tolist(), ids, logps)
    for index, (token, text, logp, others, values) in enumerate(zip(*columns, strict=True)):
        yield Token(0, token, text, logp if index else None, _pairs(others, values) if index else ())


def _pairs(ids: list[int], logps: list[float]) -> Alternatives:
    """Two columns as pairs; unused slots (id −1) are left out."""
    return tuple((token, logp) for token, logp in zip(ids, logps, strict=True) if token >= 0)
