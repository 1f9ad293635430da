"""Writes a run to standard output: plain text, or JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from edge_tui import decoders
from edge_tui.engine import seeds
from edge_tui.engine.decode.resolve import CHECKPOINT
from edge_tui.engine.remote.explanation_json import write_explanation
from edge_tui.engine.token_fields import TOKEN_FIELDS
from edge_tui.util.json_text import json_line
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from typing import TextIO

    from edge_tui.cli.why_output import WhyPrinter
    from edge_tui.engine.events import Finished, Loaded, Resolved, Started, TokenBatch
    from edge_tui.engine.explanation import Explanation

SEPARATOR = "---"
"""The line between two samples."""
_END_FIELDS = (
    "new_tokens",
    "time_to_first_token",
    "seconds",
    "tokens_per_second",
    "score",
    "peak_bytes",
    "proposing_ended",
)
"""Fields of `Finished` that the summary has under their own names."""


@dataclass
class TextWriter:
    """Writes text: as it comes where it is certain, at the end where hypotheses still compete.

    Of several samples the first is written as it comes and the others follow it.

    Attributes:
        out: Stream to write to.
        stream: True writes before the end.
        samples: Number of answers.
        why: Prints why tokens were taken.
        started: The run's first event, once it came.
        loaded: Models that were loaded, by role.
    """

    out: TextIO
    stream: bool = True
    samples: int = 1
    why: WhyPrinter | None = None
    started: Started | None = None
    loaded: dict[str, Loaded] = field(default_factory=dict)
    _rows: dict[int, list[str]] = field(default_factory=dict)
    _output: str = ""
    _is_done: bool = False
    ends_with_summary: ClassVar[bool] = False

    @property
    def seed_text(self) -> str:
        """The seeds of the answers; one where they share it."""
        assert self.started is not None, "a run's seed comes with its start"
        return seeds.span(self.started.seed, 1 if self._competing else self.samples)

    def start(self, event: Started) -> None:
        """Notes the run's strategy and columns."""
        self.started = event

    def tokens(self, batch: TokenBatch) -> None:
        """Writes the first row's tokens, or keeps them for the end."""
        if self._competing:
            return
        for row, text in zip(batch.row.tolist(), batch.text, strict=True):
            self._rows.setdefault(row, []).append(text)
            if row == 0 and self.stream:
                self._output += text
                self._write(text)
        self.out.flush()

    def finish(self, event: Finished) -> None:
        """Writes the rest of the first answer, and the other answers."""
        texts = self.answers(event)
        self._write(texts[0].removeprefix(self._output))
        self._output = texts[0]
        for text in texts[1:]:
            self._write(f"{'' if self._output.endswith(chr(10)) else chr(10)}{SEPARATOR}\n{text}")
            self._output = text
        self.end()

    def end(self) -> None:
        """Leaves a terminal's cursor at the start of a line. Only the first call counts."""
        if self.out.isatty() and not self._is_done:
            self.out.write("\n")
        self._is_done = True
        self.out.flush()

    def answers(self, event: Finished) -> list[str]:
        """Returns the text of each answer, best or first one first; at least one."""
        if event.ranked:
            return [answer.text for answer in event.ranked[: self.samples]]
        if event.answer_text is not None:
            return [event.answer_text]
        tails = dict(enumerate(event.tails)) if event.tails else {0: event.tail}
        rows = range(self.samples if not self._competing else 1)
        return ["".join(self._rows.get(row, ())) + tails.get(row, "") for row in rows]

    def explain(self, why: Explanation, row: int, index: int, alone: bool) -> None:
        """Prints why a token was taken, on standard error: the answer's text alone goes to standard output.

        Args:
            why: The explanation.
            row: The sample that has the token.
            index: The token's number.
            alone: Print the whole ladder; else one line.
        """
        assert self.why is not None, "who asks for reasons gives a printer of them"
        of_row = f" of sample {row}" if self.samples > 1 and not self._competing else ""
        (self.why.ladder if alone else self.why.line)(why, f"#{index}{of_row}")

    @property
    def _competing(self) -> bool:
        """True where rows are hypotheses of which only some become answers, even with one row."""
        return self.started is not None and decoders.find(self.started.strategy).kind == "search"

    def _write(self, text: str) -> None:
        self.out.write(sanitise(text) if self.out.isatty() else text)


@dataclass
class JsonWriter(TextWriter):
    """Writes one object a line: every token of every row, then the summary.

    Attributes:
        logprobs: Alternatives told for each token.
        decode: Text of single tokens.
        context: Settings that the summary repeats, with their sources.
        lost: Values that lost to that of each parameter.
    """

    logprobs: int = 0
    decode: Callable[[Sequence[int]], list[str]] = lambda ids: [""] * len(ids)
    context: Mapping[str, Any] = field(default_factory=dict)
    ends_with_summary: ClassVar[bool] = True
    lost: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    def tokens(self, batch: TokenBatch) -> None:
        """Writes tokens."""
        for row, text in zip(batch.row.tolist(), batch.text, strict=True):
            self._rows.setdefault(row, []).append(text)
        for record in self._records(batch):
            self._line(record)
        self.out.flush()

    def finish(self, event: Finished) -> None:
        """Writes the summary."""
        texts = self.answers(event)
        summary: dict[str, Any] = {"type": "summary", "text": texts[0], "finish_reason": event.reason}
        summary |= {name: getattr(event, name) for name in _END_FIELDS}
        if self.samples > 1:
            of_rows = () if event.ranked else event.reasons  # a search ends for all it found at once
            summary["texts"] = texts
            if not self._competing and self.started is not None:
                summary["seeds"] = seeds.of_samples(self.started.seed, self.samples)
            summary["finish_reasons"] = list(of_rows[: len(texts)] or [event.reason] * len(texts))
        if event.ranked:
            summary["scores"] = [answer.score for answer in event.ranked[: self.samples]]
        if (begin := self.started) is not None:
            summary |= {
                "strategy": begin.strategy,
                "seed": begin.seed,
                "prompt_tokens": begin.prompt_tokens,
                "control_tokens": list(begin.control_tokens),
                "parameters": {
                    name: {"value": each.value, "source": each.source}
                    | ({"lost": lost} if (lost := self._lost(name, each)) else {})
                    for name, each in begin.values.items()
                },
            }
        models = {
            role: {"name": m.name, "precision": m.precision, "device": m.device, "tier": m.tier}
            for role, m in self.loaded.items()
        }
        self._line(summary | {**self.context, "models": models})
        self.end()

    def explain(self, why: Explanation, row: int, index: int, alone: bool) -> None:
        """Writes why a token was taken on a line of its own."""
        self._line({"type": "explanation", "step": index, "row": row, **write_explanation(why)})
        self.out.flush()

    def _lost(self, name: str, value: Resolved) -> list[dict[str, Any]]:
        """Returns the values that lost to a parameter's, the checkpoint's own last."""
        own = {"key": name, "value": value.checkpoint, "source": CHECKPOINT}
        return [*self.lost.get(name, ()), *([own] if value.checkpoint is not None else [])]

    def end(self) -> None:
        """Flushes the stream; every line is whole already."""
        self.out.flush()

    def _records(self, batch: TokenBatch) -> Iterator[dict[str, Any]]:
        columns = self.started.columns if self.started else ()
        numbers = {
            each.json_line: getattr(batch, each.name).tolist() for each in TOKEN_FIELDS if each.json_line
        }
        for i, text in enumerate(batch.text):
            record: dict[str, Any] = {"type": "token", "text": text}
            record |= {key: column[i] for key, column in numbers.items()}
            record |= {name: float(batch.extras[i, k]) for k, name in enumerate(columns)}
            if self.logprobs:
                record["top"] = self._top(batch.top_ids[i], batch.top_logp[i])
                record["final_top"] = self._top(batch.final_ids[i], batch.final_top_logp[i])
            yield record

    def _top(self, ids: Any, logps: Any) -> list[dict[str, Any]]:
        ids_shown = [int(i) for i in ids[: self.logprobs] if i >= 0]
        texts = self.decode(ids_shown)
        return [
            {"id": token, "text": text, "logp": float(logp)}
            for token, text, logp in zip(ids_shown, texts, logps, strict=False)
        ]

    def _line(self, record: dict[str, Any]) -> None:
        # A terminal gets ASCII escapes for everything.
        self.out.write(json_line(record, ascii_only=self.out.isatty()) + "\n")
