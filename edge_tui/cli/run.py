"""`edge-tui run`: one prompt, decoded to standard output. The engine's plainest face.

The text, and only the text, goes to standard output: made safe on a terminal, untouched in a pipe.
"""

from __future__ import annotations

import signal
import sys
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.cli.run_output import Json, Text
from edge_tui.config.precedence import told
from edge_tui.engine import events
from edge_tui.engine.port import Request
from edge_tui.errors import UsageError
from edge_tui.history.recorder import recorder_of
from edge_tui.util.safe_stream import control
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.port import Engine
    from edge_tui.history.recorder import Recorder

POLL_SECONDS = 0.005
STOP_SECONDS = 1.0
"""How long a stopped run may take to hand over what it has."""
_BAR = 24
_MOST_BYTES = 64_000_000
"""Of a prompt: no context holds as much, and a pipe may never end."""


def run(
    settings: Settings,
    notices: Sequence[Notice],
    *,
    asked: Sequence[str] = (),
    prompt: str | None = None,
    file: str | None = None,
    json: bool = False,
    quiet: bool = False,
    n: int = 1,
    logprobs: int = 0,
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
        n: Answers: samples of one batch, or the best of a search.
        logprobs: Alternatives told for each token.

    Returns:
        The exit status: 0, 1 if the engine could not, 130 after ctrl-c, 143 after TERM.

    Raises:
        UsageError: the prompt or a parameter is not usable.
    """
    from edge_tui import decoders
    from edge_tui.engine.local import LocalEngine

    text = _prompt(prompt, file)
    decoder = decoders.find(settings.strategy)
    names = [param.name for param in decoder.params]
    for name in asked:
        if "." not in name and name not in names:
            raise UsageError(f"{decoder.name} has no parameter {name!r}; it has {', '.join(names)}.")
    if logprobs > events.TOP:
        raise UsageError(f"--logprobs is {logprobs}, but at most {events.TOP} are told of each token.")
    if logprobs and not json:
        raise UsageError(
            "--logprobs tells numbers of each token, which only --json has room for; add --json."
        )
    searches = _check_answers(decoder, settings, n)
    for notice in () if quiet else (*notices, *decoders.problems(), *decoders.notices()):
        _tell(str(notice))

    values, sources, mode = settings.for_run(decoder.name)
    request = Request(
        prompt=text,
        strategy=decoder.name,
        values=values,
        sources=sources,
        mode=mode,
        seed=settings.seed,
        max_length=settings.max_length,
        stop=settings.stop,
        chat=settings.chat,
        system=settings.system,
        template=settings.template,
        control_tokens=settings.control_tokens,
        samples=1 if searches else n,
    )
    engine: Engine = LocalEngine(settings.specs())
    recorder = recorder_of(settings, offers=False)
    if recorder is not None:
        engine = recorder.record(engine)
    writer: Text = Text(sys.stdout, settings.stream, n)
    if json:
        writer = Json(
            sys.stdout,
            samples=n,
            logprobs=logprobs,
            decode=engine.decode,
            settings=_shown(settings),
            provenance=_provenance(settings),
            lost={name: told(each.lost) for name, each in settings.decisions(decoder.name).items()},
        )
    follower = _Follower(engine, writer, quiet)
    handlers = {signal.SIGINT: follower.interrupt, signal.SIGTERM: _terminated}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        engine.submit(request)
        return follower.follow()
    except KeyboardInterrupt:
        writer.end()
        return 130
    except _Terminated:
        return 143
    finally:
        engine.close()
        if recorder is not None:
            written = recorder.close()
            if not quiet:
                _tell_of_history(recorder, written)
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Terminated(BaseException):
    """TERM arrived."""


def _terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice
    raise _Terminated


def _check_answers(decoder: Decoder, settings: Settings, n: int) -> bool:
    """Whether the answers are the best of a search rather than samples.

    Raises:
        UsageError: the search does not keep so many.
    """
    if decoder.kind != "search":
        return False
    defaults = {param.name: param.default for param in decoder.params}
    beams = decoder.rows(defaults | settings.values(decoder.name))
    if n > beams:
        raise UsageError(f"--n is {n}, but {decoder.name} keeps {beams}; raise it with --set num_beams={n}.")
    return True


_KEYS = (
    "models.name", "precision", "device", "context", "strategy", "mode", "seed", "max_length", "stop", "chat",
    "system",
)  # fmt: skip
"""The settings that a run depends on, besides parameters and template variables."""


def _shown(settings: Settings) -> dict[str, object]:
    """The settings that a run depends on, for the summary."""
    return {
        "model": settings.models.name,
        "precision": settings.precision,
        "device": settings.device,
        "context": settings.context,
        "mode": settings.mode,
        "max_length": settings.max_length,
        "stop": list(settings.stop),
        "chat": settings.chat,
        "system": settings.system,
        "template": dict(settings.template),
        "control_tokens": settings.control_tokens,
    }


def _provenance(settings: Settings) -> dict[str, object]:
    """Where each of those settings came from, and the values that lost, for the summary."""
    keys = [*_KEYS, *(f"template.{name}" for name in settings.template)]
    lost = {key: told(reversed(settings.claims_of(key)[:-1])) for key in keys}
    return {
        "sources": {key: settings.source(key) for key in keys},
        "lost": {key: claims for key, claims in lost.items() if claims},
    }


def _prompt(prompt: str | None, file: str | None) -> str:
    if prompt is not None and file is not None:
        raise UsageError("there are two prompts, one as argument and one with -f; give one of them.")
    if prompt is None:
        if file is None and sys.stdin.isatty():
            raise UsageError("there is no prompt; give it as argument, with -f FILE, or on standard input.")
        try:
            if file in (None, "-"):
                raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
            else:
                with Path(str(file)).open("rb") as opened:  # a pipe too, which shells make of <(…)
                    raw = opened.read(_MOST_BYTES + 1)
            if len(raw) > _MOST_BYTES:
                raise UsageError(f"the prompt has more than {_MOST_BYTES:,} bytes; give a shorter one.")
            prompt = raw.decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"the prompt is not UTF-8 (byte {error.start}).") from error
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    return prompt


class _Follower:
    """Hands on what the engine says.

    Args:
        engine: With one run submitted.
        writer: Of standard output.
        quiet: Say nothing but errors.
    """

    def __init__(self, engine: Engine, writer: Text, quiet: bool) -> None:
        self._engine, self._writer, self._quiet = engine, writer, quiet
        self._bar = not quiet and sys.stderr.isatty()
        self._told: set[str] = set()
        self._drawn = 0
        self._interrupted = False

    def interrupt(self, *_: object) -> None:
        """Ends the run with what there is; asked a second time, at once.

        It only takes note: an exception could fall between taking an event and writing it.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def follow(self) -> int:
        """Follows the run to its end; returns the exit status."""
        deadline = inf
        while time.monotonic() < deadline:
            if self._interrupted and deadline == inf:
                self._engine.cancel()
                deadline = time.monotonic() + STOP_SECONDS
            for event in self._engine.poll():
                if (status := self._take(event)) is not None:
                    return 130 if self._interrupted else status
            time.sleep(POLL_SECONDS)
        self._writer.end()
        return 130

    def _take(self, event: events.Event) -> int | None:
        """Handles one event; the exit status if it was the last."""
        writer = self._writer
        match event:
            case events.Progress():
                self._draw(event)
            case events.Loaded():
                if isinstance(writer, Json):
                    writer.loaded[event.role] = event
                self._tell_all(event.notices)
            case events.Started():
                writer.start(event)
                self._tell_all(event.notices)
            case events.TokenBatch():
                self._erase()
                writer.tokens(event)
            case events.Noticed():
                self._tell_all([event.message])
            case events.Finished():
                self._erase()
                writer.finish(event)
                if not self._quiet:
                    _tell(_summary(event, writer.started))
                return 0
            case events.Failed() | events.Died():
                self._erase()
                writer.end()
                if not self._interrupted:  # who stops a load does not want to hear that it was stopped
                    _tell(f"edge-tui: {event.message}")
                    if event.detail:
                        _log(event.detail)
                return 1
        return None

    def _tell_all(self, lines: Sequence[str]) -> None:
        """Each only once: two models may have the same to say."""
        self._erase()
        for line in () if self._quiet else lines:
            if line not in self._told:
                self._told.add(line)
                _tell(line)

    def _draw(self, event: events.Progress) -> None:
        """A bar on the terminal while a model loads or a long prompt is read."""
        if not self._bar or (event.what == "prefill" and event.total < 1024):
            return
        share = event.done / max(event.total, 1)
        what = "loading" if event.what == "load" else "reading the prompt of"
        line = f"{what} {sanitise(event.name, keep_newlines=False)} "
        line += f"▕{'█' * round(share * _BAR):<{_BAR}}▏ {share:4.0%}"
        control(sys.stderr, f"\r{line:<{self._drawn}}")
        self._drawn = len(line)

    def _erase(self) -> None:
        if self._drawn:
            control(sys.stderr, "\r" + " " * self._drawn + "\r")
            self._drawn = 0


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


def _tell_of_history(recorder: Recorder, written: bool) -> None:
    """Says why this run is not in the history, if it is not."""
    if recorder.problem:
        _tell(recorder.problem)
    elif not written:
        _tell("The history could not be written in time: the end of this run may be missing there.")


def _log(detail: str) -> None:
    from edge_tui.util import logs

    logs.detail(detail)
