"""`edge-tui run`: decodes one prompt to standard output.

The text, and only the text, goes to standard output: made safe on a terminal, untouched in a pipe.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any

from edge_tui.cli import why
from edge_tui.cli.flag_settings import load_settings, pop_flags, split_parameter
from edge_tui.cli.messages import fail, print_line
from edge_tui.cli.run_output import JsonWriter, TextWriter
from edge_tui.cli.text_input import read_text
from edge_tui.cli.why import RunReasons
from edge_tui.cli.why_output import WhyPrinter
from edge_tui.config.precedence import claims_json
from edge_tui.decoders.base import numbers
from edge_tui.decoders.beam import NUM_BEAMS
from edge_tui.engine import events
from edge_tui.engine.port import Request
from edge_tui.errors import UsageError
from edge_tui.history.recorder import recorder_of
from edge_tui.machine.torch_libraries import begin_libraries
from edge_tui.util import logs
from edge_tui.util.formatting import bar
from edge_tui.util.safe_stream import write_control
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.port import Engine
    from edge_tui.history.recorder import Recorder

POLL_SECONDS = 0.005
STOP_SECONDS = 1.0
"""Seconds that a stopped run may take to hand over its tokens."""
_BAR = 24


@dataclass(frozen=True, slots=True)
class Options:
    """Holds the flags of `edge-tui run` that are no settings.

    Attributes:
        prompt: The prompt; without it `file`, without that standard input is read.
        file: A file with the prompt, "-" for standard input. One newline at its end is not part of it.
        json: One object per token, then a summary.
        quiet: Nothing on standard error but errors.
        n: Answers: samples of one batch, or the best of a search.
        logprobs: Alternatives written for each token.
        proposing_ends: The step from which on nothing is proposed; None leaves it to the run.
        explain: Tokens to explain (`why.read_tokens`); the prompt, where it came behind a bare `--explain`.
    """

    prompt: str | None = None
    file: str | None = None
    json: bool = False
    quiet: bool = False
    n: int = 1
    logprobs: int = 0
    explain: str = ""
    proposing_ends: int | None = None


def run(flags: dict[str, Any]) -> int:
    """Decodes one prompt.

    Returns:
        The exit status: 0, 1 if the engine could not, 130 after ctrl-c. TERM exits with 143.

    Raises:
        UsageError: the prompt or a flag cannot be used.
    """
    from edge_tui import decoders

    options = _split_explain(Options(**pop_flags(flags, (field.name for field in fields(Options)))))
    settings, notices = load_settings(flags)
    begin_libraries(settings.device)
    prompt = _read_prompt(options)
    decoder = decoders.find(settings.strategy)
    _check_parameters(decoder, [split_parameter(pair)[0] for pair in flags.get("set", ())])
    _check_logprobs(options)
    searches = _check_answers(decoder, settings, options.n)
    if not options.quiet:
        strategies = decoders.current()
        for notice in (*notices, *strategies.problems, *strategies.notices):
            print_line(str(notice), sys.stderr)
    values, sources, mode = settings.for_run(decoder.name)
    request = Request(
        prompt=prompt,
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
        proposing_ends=options.proposing_ends,
        samples=1 if searches else options.n,
    )
    return _decode(request, settings, options)


def _decode(request: Request, settings: Settings, options: Options) -> int:
    """Runs one request on an engine of its own; returns the exit status."""
    from edge_tui.engine.local import LocalEngine

    engine: Engine = LocalEngine(settings.specs())
    recorder = recorder_of(settings, interrupt_on_exit=False)
    if recorder is not None:
        engine = recorder.record(engine)
    writer = _writer(options, settings, engine)
    tokens = why.read_tokens(options.explain)
    reasons = RunReasons(engine, request, tokens, writer.explain) if tokens is not None else None
    follower = _Follower(engine, writer, options.quiet, reasons)
    handlers = {signal.SIGINT: follower.interrupt, signal.SIGTERM: _terminate}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        engine.submit(request)
        return follower.follow()
    except KeyboardInterrupt:
        writer.end()
        return 130
    finally:
        engine.close()
        if recorder is not None:
            written = recorder.close()
            if not options.quiet:
                _report_history(recorder, written)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _writer(options: Options, settings: Settings, engine: Engine) -> TextWriter:
    if not options.json:
        printer = WhyPrinter(sys.stderr, os.environ) if options.explain else None
        return TextWriter(sys.stdout, settings.stream, options.n, printer)
    decisions = settings.decisions(settings.strategy)
    return JsonWriter(
        sys.stdout,
        samples=options.n,
        logprobs=options.logprobs,
        decode=engine.decode,
        context=_context(settings),
        lost={name: claims_json(each.losers) for name, each in decisions.items()},
    )


def _split_explain(options: Options) -> Options:
    """Takes what stands behind a bare `--explain` for the prompt.

    Raises:
        UsageError: there is another one.
    """
    if not options.explain or why.read_tokens(options.explain) is not None:
        return options
    if options.prompt is None and options.file is None:
        return replace(options, prompt=options.explain, explain="all")
    raise UsageError(f"--explain takes all, last or numbers of tokens (0,7), not {options.explain!r}.")


def _check_parameters(decoder: Decoder, names: Iterable[str]) -> None:
    """Refuses parameters of the command line that the strategy does not have; "other.name" passes."""
    declared = [param.name for param in decoder.params]
    for name in names:
        if "." not in name and name not in declared:
            raise UsageError(f"{decoder.name} has no parameter {name!r}; it has {', '.join(declared)}.")


def _check_logprobs(options: Options) -> None:
    if options.logprobs > events.TOP:
        most = f"at most {events.TOP} are told of each token."
        raise UsageError(f"--logprobs is {options.logprobs}, but {most}")
    if options.logprobs and not options.json:
        reason = "numbers of each token, which only --json has room for; add --json."
        raise UsageError(f"--logprobs tells {reason}")


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice
    sys.exit(143)


def _check_answers(decoder: Decoder, settings: Settings, n: int) -> bool:
    """Tells whether the answers are the best of a search rather than samples.

    Raises:
        UsageError: the search does not keep so many.
    """
    if decoder.kind != "search":
        return False
    if decoder.lag and n > 1:
        raise UsageError(f"--n is {n}, but {decoder.name} gives one answer: leave it out.")
    values = settings.values(decoder.name)
    params = numbers(decoder.params)
    beams = decoder.rows({param.name: param.parse(values.get(param.name, param.default)) for param in params})
    if n > beams:
        widened = NUM_BEAMS.name in {param.name for param in params}
        way_out = f"raise it with --set num_beams={n}" if widened else f"ask for {beams} at most"
        raise UsageError(f"--n is {n}, but {decoder.name} keeps {beams}; {way_out}.")
    return True


_SUMMARY_KEYS = ("precision", "device", "context", "mode", "max_length", "stop", "chat", "system")
"""Settings of the summary whose sources it has too."""


def _context(settings: Settings) -> dict[str, object]:
    """Returns the settings that a run depends on, where they came from, and the values that lost."""
    values = {key: settings.value_of(key) for key in (*_SUMMARY_KEYS, "template", "control_tokens")}
    keys = ["models.name", "strategy", "seed", *_SUMMARY_KEYS]
    keys += [f"template.{name}" for name in settings.template]
    lost = {key: claims_json(reversed(settings.claims_of(key)[:-1])) for key in keys}
    return {
        "settings": {"model": settings.models.name, **values},
        "sources": {key: settings.source(key) for key in keys},
        "lost": {key: claims for key, claims in lost.items() if claims},
    }


def _read_prompt(options: Options) -> str:
    """Returns the prompt of the arguments, a file or standard input.

    Raises:
        UsageError: there is none, there are two, or it cannot be read.
    """
    file = options.file
    if options.prompt is not None:
        if file is not None:
            raise UsageError("there are two prompts, one as argument and one with -f; give one of them.")
        return options.prompt
    if file is None and sys.stdin.isatty():
        raise UsageError("there is no prompt; give it as argument, with -f FILE, or on standard input.")
    return read_text(file, "prompt")


class _Follower:
    """Polls the engine and writes each event to standard output or standard error.

    Args:
        engine: With one run submitted.
        writer: Of standard output.
        quiet: Print nothing but errors on standard error.
        reasons: Explains tokens at the end; None explains none.
    """

    def __init__(
        self, engine: Engine, writer: TextWriter, quiet: bool, reasons: RunReasons | None = None
    ) -> None:
        self._engine, self._writer, self._quiet, self._reasons = engine, writer, quiet, reasons
        self._bar = not quiet and sys.stderr.isatty()
        self._lines: set[str] = set()
        self._width = 0
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
                if (status := self._handle(event)) is not None:
                    return 130 if self._interrupted else status
            time.sleep(POLL_SECONDS)
        self._writer.end()
        return 130

    def _handle(self, event: events.Event) -> int | None:
        """Handles one event; the exit status if it was the last."""
        writer = self._writer
        if self._reasons is not None:
            self._reasons.apply(event)
        match event:
            case events.Progress():
                self._draw(event)
            case events.Loaded():
                writer.loaded[event.role] = event
                self._print_new(event.notices)
            case events.Started():
                writer.start(event)
                self._print_new(event.notices)
            case events.TokenBatch():
                self._erase()
                writer.tokens(event)
            case events.Noticed():
                self._print_new([event.message])
            case events.Finished():
                self._erase()
                return self._end(event)
            case events.Failed() | events.Died():
                self._erase()
                writer.end()
                if not self._interrupted:  # who stops a load does not want to hear that it was stopped
                    fail(event.message)
                    if event.detail:
                        logs.write_detail(event.detail)
                return 1
        return None

    def _end(self, event: events.Finished) -> int:
        """Writes the end of the answer and the reasons; a summary for programs stays the last line."""

        def finish() -> None:
            self._writer.finish(event)
            if not self._quiet:
                print_line(_summary(event, self._writer), sys.stderr)

        if not self._writer.ends_with_summary:
            finish()
        status = 0
        if self._reasons is not None:
            status = self._reasons.write(lambda: self._interrupted)
        if self._writer.ends_with_summary:
            finish()
        return status

    def _print_new(self, lines: Iterable[str]) -> None:
        """Prints each line once: two models may say the same."""
        self._erase()
        for line in () if self._quiet else lines:
            if line not in self._lines:
                self._lines.add(line)
                print_line(line, sys.stderr)

    def _draw(self, event: events.Progress) -> None:
        """Draws a progress bar while a model loads, its kernels are compiled, or a long prompt is read."""
        if not self._bar or event.what == "capture" or (event.what == "prefill" and event.total < 1024):
            return
        share = event.done / max(event.total, 1)
        what = {
            "load": "loading",
            "compile": f"compiling kernels, {event.done} of {event.total}, for",
            "prefill": "reading the prompt of",
        }[event.what]
        line = f"{what} {one_line(event.name)} ▕{bar(share, _BAR)}▏ {share:4.0%}"
        write_control(sys.stderr, f"\r{line:<{self._width}}")
        self._width = len(line)

    def _erase(self) -> None:
        if self._width:
            write_control(sys.stderr, "\r" + " " * self._width + "\r")
            self._width = 0


def _summary(end: events.Finished, writer: TextWriter) -> str:
    first = f"first after {end.time_to_first_token * 1000:.0f} ms"
    parts = [f"{end.new_tokens} tokens", f"{end.tokens_per_second:.0f} tok/s", first, end.reason]
    if writer.started is not None:
        parts += [writer.started.strategy, f"seed {writer.seed_text}"]
    return " · ".join(parts)


def _report_history(recorder: Recorder, written: bool) -> None:
    """Prints why this run is missing in the history, if it is."""
    if recorder.problem:
        print_line(recorder.problem, sys.stderr)
    elif not written:
        print_line(
            "The history could not be written in time: the end of this run may be missing there.", sys.stderr
        )
