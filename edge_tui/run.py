"""`edge-tui run`: one prompt, decoded to standard output. The engine's plainest face.

The text, and only the text, goes to standard output: made safe on a terminal, untouched in a pipe.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.cli import UsageError
from edge_tui.engine import events
from edge_tui.engine.port import Request
from edge_tui.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from edge_tui.config_file import Notice
    from edge_tui.engine.port import Engine
    from edge_tui.settings import Settings

POLL_SECONDS = 0.01


def run(
    settings: Settings,
    notices: Sequence[Notice],
    *,
    asked: Sequence[str] = (),
    prompt: str | None = None,
    file: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Decodes one prompt.

    Args:
        settings: Model, strategy and the rest.
        notices: What was wrong with the configuration; told on standard error.
        asked: Parameter names of the command line; one that the strategy does not have is refused.
        prompt: The prompt; without it `file`, without that standard input is read.
        file: A file with the prompt, "-" for standard input. One newline at its end is not part of it.
        json: One object per token, then a summary.
        quiet: Nothing on standard error but errors.

    Returns:
        The exit status: 0, 1 if the engine could not, 130 after ctrl-c, 143 after TERM.

    Raises:
        UsageError: the prompt or a parameter is not usable.
    """
    import decoders
    from edge_tui.engine.local import LocalEngine

    text = _prompt(prompt, file)
    decoder = decoders.find(settings.strategy)
    names = [param.name for param in decoder.params]
    for name in asked:
        if "." not in name and name not in names:
            raise UsageError(f"{decoder.name} has no parameter {name!r}; it has {', '.join(names)}.")
    for notice in () if quiet else (*notices, *decoders.problems()):
        _tell(str(notice))

    request = Request(
        prompt=text,
        strategy=decoder.name,
        values=settings.values(decoder.name),
        sources=settings.value_sources(decoder.name),
        mode=settings.mode,
        seed=settings.seed,
        max_length=settings.max_length,
        stop=settings.stop,
        chat=settings.chat,
        system=settings.system,
    )
    writer = (_Json if json else _Text)(sys.stdout, stream=settings.stream)
    previous = signal.signal(signal.SIGTERM, _terminated)
    engine = LocalEngine(settings.specs())
    try:
        return _follow(engine, request, writer, quiet=quiet)
    except KeyboardInterrupt:
        engine.cancel()
        writer.end()
        return 130
    except _Terminated:
        return 143
    finally:
        engine.close()
        signal.signal(signal.SIGTERM, previous)


class _Terminated(BaseException):
    """TERM arrived."""


def _terminated(*_: object) -> None:
    raise _Terminated


def _prompt(prompt: str | None, file: str | None) -> str:
    if prompt is not None and file is not None:
        raise UsageError("there are two prompts, one as argument and one with -f; give one of them.")
    if prompt is None:
        if file is None and sys.stdin.isatty():
            raise UsageError("there is no prompt; give it as argument, with -f FILE, or on standard input.")
        try:
            raw = sys.stdin.buffer.read() if file in (None, "-") else Path(str(file)).read_bytes()
            prompt = raw.decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"the prompt is not UTF-8 (byte {error.start}).") from error
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    if not prompt.strip():
        raise UsageError("the prompt is empty; give at least one word.")
    return prompt


def _follow(engine: Engine, request: Request, writer: _Text, *, quiet: bool) -> int:
    """Hands on what the engine says until the run has ended."""
    engine.submit(request)
    while True:
        for event in engine.poll():
            match event:
                case events.Started():
                    writer.start(event)
                    for line in () if quiet else event.notices:
                        _tell(line)
                case events.Loaded():
                    for line in () if quiet else event.notices:
                        _tell(line)
                case events.TokenBatch():
                    writer.tokens(event)
                case events.Finished():
                    writer.finish(event)
                    if not quiet:
                        _tell(_summary(event, writer.started))
                    return 0
                case events.Failed() | events.Died():
                    writer.end()
                    _tell(f"edge-tui: {event.message}")
                    if event.detail:
                        _log(event.detail)
                    return 1
        time.sleep(POLL_SECONDS)


def _summary(end: events.Finished, begin: events.Started | None) -> str:
    parts = [
        f"{end.new_tokens} tokens",
        f"{end.tokens_per_second:.0f} tok/s",
        f"first after {end.time_to_first_token * 1000:.0f} ms",
        end.reason,
    ]
    if begin is not None:
        parts += [begin.strategy, f"seed {begin.seed}"]
    return " · ".join(parts)


def _tell(line: str) -> None:
    print(sanitise(line, keep_newlines=False), file=sys.stderr)


def _log(detail: str) -> None:
    from edge_tui import logs

    logs.detail(detail)


@dataclass
class _Text:
    """Writes plain text: as it comes where it is certain, at the end where rows still compete.

    Attributes:
        out: Where to.
        stream: Whether to write before the end.
    """

    out: TextIO
    stream: bool = True
    started: events.Started | None = None
    written: list[str] = field(default_factory=list)

    def start(self, event: events.Started) -> None:
        """Learns how many rows compete."""
        self.started = event

    def tokens(self, batch: events.TokenBatch) -> None:
        """Takes tokens."""
        if self._single:
            self.written.extend(batch.text)
            if self.stream:
                self._write("".join(batch.text))

    def finish(self, event: events.Finished) -> None:
        """Writes what is still missing, and a newline on a terminal."""
        text = self._answer(event)
        self._write(text.removeprefix("".join(self.written)) if self._single and self.stream else text)
        self.end()

    def end(self) -> None:
        """Leaves the terminal's cursor at the start of a line."""
        if self.out.isatty():
            self.out.write("\n")
        self.out.flush()

    @property
    def _single(self) -> bool:
        return self.started is None or self.started.rows == 1

    def _answer(self, event: events.Finished) -> str:
        if event.answer_text is not None:
            return event.answer_text
        return "".join(self.written) + event.tail

    def _write(self, text: str) -> None:
        self.out.write(sanitise(text) if self.out.isatty() else text)
        self.out.flush()


class _Json(_Text):
    """Writes one object a line: every token of every row, then the summary."""

    def tokens(self, batch: events.TokenBatch) -> None:
        """Writes tokens."""
        if self._single:
            self.written.extend(batch.text)
        for record in _records(batch, self.started.columns if self.started else ()):
            self._line(record)
        self.out.flush()

    def finish(self, event: events.Finished) -> None:
        """Writes the summary."""
        begin = self.started
        summary = {
            "type": "summary",
            "text": self._answer(event),
            "reason": event.reason,
            "new_tokens": event.new_tokens,
            "time_to_first_token": event.time_to_first_token,
            "seconds": event.seconds,
            "tokens_per_second": event.tokens_per_second,
            "score": event.score,
            "peak_bytes": event.peak_bytes,
        }
        if begin is not None:
            summary |= {
                "strategy": begin.strategy,
                "seed": begin.seed,
                "prompt_tokens": begin.prompt_tokens,
                "parameters": {n: {"value": r.value, "source": r.source} for n, r in begin.values.items()},
            }
        self._line(summary)
        self.out.flush()

    def end(self) -> None:
        """Every line is whole already."""
        self.out.flush()

    def _line(self, record: dict[str, Any]) -> None:
        # A terminal gets ASCII escapes for everything, the one control character that ASCII leaves included.
        line = json.dumps(_finite(record), ensure_ascii=self.out.isatty())
        self.out.write(line.replace("\x7f", "\\u007f") + "\n")


def _records(batch: events.TokenBatch, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for i, text in enumerate(batch.text):
        record: dict[str, Any] = {
            "type": "token",
            "step": int(batch.step[i]),
            "row": int(batch.row[i]),
            "parent": int(batch.parent[i]),
            "id": int(batch.id[i]),
            "text": text,
            "logp": float(batch.raw_logp[i]),
            "final_logp": float(batch.final_logp[i]),
            "rank": int(batch.rank[i]),
            "entropy": float(batch.entropy[i]),
        }
        yield record | {name: float(batch.extras[i, k]) for k, name in enumerate(columns)}


def _finite(value: Any) -> Any:
    """JSON knows no infinity: such a number becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value
