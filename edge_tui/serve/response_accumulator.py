"""Accumulates a generation's answers from the engine's events. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_tui import decoders
from edge_tui.engine import events, seeds
from edge_tui.engine.events import FinishReason, TokenBatch
from edge_tui.transcript.run_state import RunState
from edge_tui.transcript.transcript import Transcript

Alternatives = tuple[tuple[int, float], ...]
"""Token ids and log-probabilities (nats), best first."""


@dataclass(frozen=True, slots=True)
class Token:
    """Holds one token as responses show it; log-probabilities in nats, under the model itself.

    Attributes:
        row: The sample it belongs to.
        id: Its id.
        text: The characters that it completed.
        logp: Its log-probability; None for the first token of a prompt, which nothing predicts.
        top: The most likely tokens in its place.
    """

    row: int
    id: int
    text: str
    logp: float | None
    top: Alternatives


@dataclass(slots=True)
class Choice:
    """Holds one of a generation's answers.

    Attributes:
        parts: Its text so far, in pieces.
        tokens: Its tokens, if the accumulator keeps them.
        token_count: Number of its tokens.
        reason: The finish reason.
        score: Of a search's answer.
    """

    parts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    token_count: int = 0
    reason: FinishReason = "cancelled"
    score: float | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.parts)


class ResponseAccumulator(RunState):
    """Collects texts, tokens, counts and notices of one generation from its events.

    Args:
        n: Number of answers; a search may find more.
        top: Alternatives to keep for each token; None keeps no tokens beside the text.
        prefix: Ids that the answers go on from, to keep a transcript; None keeps none.

    Attributes:
        transcript: Everything that came of the tokens, if it is kept.
    """

    def __init__(self, n: int = 1, top: int | None = None, prefix: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.transcript: Transcript | None = None
        self._prefix = prefix
        self.choices: list[Choice] = []
        self._n = n
        self._top = top
        self.is_search = False
        """True for a search, whose hypotheses may still lose: its answers come with the end."""
        self._end_ids: frozenset[int] = frozenset()

    @property
    def seeds(self) -> list[int]:
        """The seed of each of several samples, with which it is a run of its own; else empty."""
        if self.started is None or self.is_search or len(self.choices) == 1:
            return []
        return seeds.of_samples(self.started.seed, len(self.choices))

    def add(self, event: events.Event) -> list[Token]:
        """Takes an event; returns the tokens that it adds to the answers."""
        self.apply(event)
        if self.transcript is not None:
            self.transcript.apply(event)
        match event:
            case events.Started():
                self.notices += event.notices
                self._end_ids = frozenset(event.end_ids)
                if self._prefix is not None:
                    self.transcript = Transcript(event, prefix=self._prefix)
                self.is_search = decoders.find(event.strategy).kind == "search"
                self.choices = [Choice() for _ in range(1 if self.is_search else event.rows)]
            case TokenBatch():
                return [] if self.is_search else self._add_tokens(event)
            case events.Finished():
                return self._finish(event)
        return []

    def _add_tokens(self, batch: TokenBatch) -> list[Token]:
        added = []
        for token in tokens_of(batch, self._top or 0):
            choice = self.choices[token.row]
            choice.token_count += 1
            if token.id in self._end_ids:
                continue  # no part of the answer
            choice.parts.append(token.text)
            if self._top is not None:
                choice.tokens.append(token)
            added.append(token)
        return added

    def _finish(self, event: events.Finished) -> list[Token]:
        """Takes the end of the run: texts, reasons, scores and counts."""
        if event.ranked:
            self.choices = [
                Choice([best.text], token_count=len(best.tokens), reason=event.reason, score=best.score)
                for best in event.ranked[: self._n]
            ]
            return []
        tails = []
        for row, choice in enumerate(self.choices):
            choice.reason = event.reasons[row] if row < len(event.reasons) else event.reason
            if tail := event.tails[row] if row < len(event.tails) else "":
                choice.parts.append(tail)
                # Belongs to the last token, which has left already: an unfinished character on its own.
                tails.append(Token(row, -1, tail, None, ()))
        return tails


def tokens_of(batch: TokenBatch, top: int) -> Iterator[Token]:
    """Yields a batch's tokens, with so many alternatives each."""
    ids = batch.top_ids[:, :top].tolist() if top else [[]] * len(batch)
    logps = batch.top_logp[:, :top].tolist() if top else ids
    columns = (batch.row.tolist(), batch.id.tolist(), batch.text, batch.raw_logp.tolist(), ids, logps)
    for row, token, text, logp, others, values in zip(*columns, strict=True):
        yield Token(row, token, text, logp, _pairs(others, values))


def tokens_of_prompt(prompt: events.PromptRead, top: int) -> Iterator[Token]:
    """Yields a prompt's tokens; nothing predicts the first."""
    ids, logps = prompt.top_ids[:, :top].tolist(), prompt.top_logp[:, :top].tolist()
    columns = (prompt.ids, prompt.text, prompt.logp.tolist(), ids, logps)
    for index, (token, text, logp, others, values) in enumerate(zip(*columns, strict=True)):
        yield Token(0, token, text, logp if index else None, _pairs(others, values) if index else ())


def _pairs(ids: list[int], logps: list[float]) -> Alternatives:
    """Pairs ids with log-probabilities, without unused slots (id −1)."""
    return tuple((token, logp) for token, logp in zip(ids, logps, strict=True) if token >= 0)
