"""The command line: `edge-tui` opens the workbench, `edge-tui run` streams to standard output.

Whatever goes wrong is one line on standard error and a return code: 2 for what was asked, 1 for what
failed, 130 after ctrl-c, 141 when the reader of the output has left. Loads neither torch nor Textual before
it must.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from edge_tui import __version__
from edge_tui.cli import bench_flags, flags, history_flags, library_output, serve_flags, standard_streams
from edge_tui.cli.repeated_flags import Append, Namespace
from edge_tui.errors import UsageError
from edge_tui.util.safe_stream import guard_terminal
from edge_tui.util.sanitise import sanitise
from edge_tui.util.user_file import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings

PROGRAM = "edge-tui"
_MOST = 256
"""Upper bound of counts that cost memory each."""
_CONFIG_HELP = "read this file instead of your own config.toml"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints a help, which quotes titles and sentences of the user's own strategies."""
        super()._print_message(sanitise(message), file)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `edge-tui` command; returns the exit status."""
    standard_streams.prepare()
    library_output.silence()
    guard_terminal()
    return standard_streams.flushed(lambda: _status(argv))


def _status(argv: Sequence[str] | None) -> int:
    """Does what the arguments say; whatever goes wrong but a closed pipe is said and becomes a status."""
    try:
        return _dispatch(parser(argv).parse_args(argv, Namespace()))
    except UsageError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError as error:
        if standard_streams.are_read():
            return _crashed(error)
        raise
    except Exception as error:
        return _crashed(error)


def _crashed(error: Exception) -> int:
    from edge_tui.util import logs

    kept = logs.crash(error)
    where = f"details are in {kept}" if kept else "no log could be written"
    return _say(f"something went wrong ({logs.summary(error)}); {where}.", 1)


def parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The flags. What is not given does not appear in the result, so that it overrides nothing.

    `argv` is what will be parsed; the help on strategies looks in it for where the user's own are.
    """
    top = _Parser(
        prog=PROGRAM,
        description="Watch a language model decode, token by token, under one strategy or another.",
        epilog="Defaults come from config.toml and EDGE_TUI_* variables; see README.md.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    top.add_argument(
        "--connect", metavar="URL", help="decode on a server: edge-tui serve, or one with OpenAI's API"
    )
    top.add_argument("--api-key-file", metavar="FILE", help="the key that the server wants to see")
    _add_settings(top)
    commands = top.add_subparsers(dest="command", metavar="[run]", title="commands", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="decode one prompt to standard output",
        description="Streams one prompt's text to standard output; all else goes to standard error.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.format_help = partial(_help_with_parameters, run.format_help, argv)  # type: ignore[method-assign]
    run.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="the prompt; without it, standard input is read"
    )
    run.add_argument("-f", "--file", metavar="FILE", help="read the prompt from a file (- is standard input)")
    run.add_argument("--json", action="store_true", help="one JSON object per token, then a summary")
    run.add_argument(
        "--logprobs",
        type=_count,
        metavar="N",
        help="with --json: the N likeliest tokens of each step, up to 20",
    )
    run.add_argument(
        "--n", type=_count, metavar="N", help="so many answers: samples in one batch, or a search's best"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="nothing on standard error but errors")
    _add_settings(run)
    bench_flags.add(commands, _Parser)
    flags.add(commands, _Parser)
    serve_flags.add(commands, _Parser, _add_settings)
    history_flags.add(commands, _Parser)
    for each in (top, run):
        each.add_argument(
            "--no-history", dest="history.keep", action="store_false", help="leave nothing of it on disk"
        )
    return top


def _add_settings(to: argparse.ArgumentParser, screen: bool = True) -> None:
    """Adds the flags of settings; those of a screen or a stream of text only where there is one."""
    model = to.add_argument_group("model")
    model.add_argument(
        "--model",
        dest="models.name",
        metavar="NAME",
        help="demo/expert, an id in the local cache, or a folder",
    )
    model.add_argument(
        "--expert", dest="models.expert", metavar="NAME", help="larger model of a contrastive pair"
    )
    model.add_argument(
        "--amateur", dest="models.amateur", metavar="NAME", help="smaller model of a contrastive pair"
    )
    model.add_argument(
        "--draft", dest="models.draft", metavar="NAME", help="model that proposes in speculative decoding"
    )
    model.add_argument("--precision", metavar="P", help="auto, float32, bfloat16, float16, int8 or 4bit")
    model.add_argument("--device", metavar="D", help="auto, cpu, mps, cuda or cuda:N")
    model.add_argument("--context", metavar="N", help="positions to reserve; 0 is the model's limit")

    decoding = to.add_argument_group("decoding")
    decoding.add_argument("--strategy", metavar="NAME", help="greedy, beam, top_k, top_p, min_p, …")
    decoding.add_argument(
        "--set",
        dest="set",
        action=Append,
        metavar="NAME=VALUE",
        help="a strategy's parameter; may be repeated",
    )
    decoding.add_argument("--mode", metavar="MODE", help="custom, exploratory or focused")
    decoding.add_argument("--seed", metavar="N", help="a whole number; auto or -1 draws one")
    decoding.add_argument(
        "--max-new-tokens", "--max-length", dest="max_length", metavar="N", help="most new tokens"
    )
    decoding.add_argument("--stop", action=Append, metavar="TEXT", help="end at this text; may be repeated")
    decoding.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, help="use the model's chat template"
    )
    decoding.add_argument(
        "--raw", dest="chat", action="store_false", help="complete the prompt as it stands (--no-chat)"
    )
    decoding.add_argument("--system", metavar="TEXT", help="system prompt for the chat template")
    decoding.add_argument(
        "--template",
        action=Append,
        metavar="NAME=VALUE",
        help="a variable of the chat template, as in enable_thinking=false; may be repeated",
    )
    decoding.add_argument(
        "--control-tokens",
        action=argparse.BooleanOptionalAction,
        help="a control token's name in the prompt is that token, not text",
    )

    rest = to.add_argument_group("the rest")
    if screen:
        rest.add_argument(
            "--no-stream", dest="stream", action="store_false", help="show the text when it is finished"
        )
        rest.add_argument("--theme", dest="ui.theme", metavar="NAME", help="theme of the workbench")
    rest.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    rest.add_argument(
        "--decoders",
        dest="decoder_folders",
        action=Append,
        metavar="DIR",
        help="a folder with strategies of your own",
    )


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_MOST}, not {text!r}")
    return int(text)


def _help_with_parameters(plain: Callable[[], str], argv: Sequence[str] | None) -> str:
    """The help, and what each strategy declares about its parameters, each told once."""
    from edge_tui import decoders

    places = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    places.add_argument("--config")
    places.add_argument("--decoders", dest="decoder_folders", action="append")
    with suppress(UsageError):  # strategies of the user's own are where the settings say
        _settings(vars(places.parse_known_args(argv)[0]))
    lines = ["parameters of each strategy, for --set:"]
    told: set[tuple[str, str, float]] = set()
    for decoder in decoders.strategies():
        lines += ["", f"  {decoder.name}: {decoder.summary}"]
        shared = []
        for param in decoder.params:
            if (key := (param.name, param.help, param.default)) in told:
                shared.append(param.name)
                continue
            told.add(key)
            about = f"{param.help} {param.range()}; default {param.format(param.default)}"
            lines += textwrap.wrap(
                f"{param.name:<20} {about}", 100, initial_indent=" " * 4, subsequent_indent=" " * 25
            )
        if shared:
            lines += textwrap.wrap(
                f"also: {', '.join(shared)}", 100, initial_indent=" " * 4, subsequent_indent=" " * 10
            )
    return plain() + "\n" + "\n".join(lines) + "\n"


def _dispatch(args: argparse.Namespace) -> int:
    given = vars(args)
    command, before = given.pop("command", None), given.pop("before", ())
    if command is not None and "connect" in given:
        raise UsageError(f"--connect opens the workbench over a server; {command} works on this machine.")
    if before and command not in ("run", "serve", "config"):
        from edge_tui.config.names import flag_of

        raise UsageError(
            f"{flag_of(before[0])} has no meaning for {command}: leave it out"
            f" (see {PROGRAM} {command} --help)."
        )
    if command == "bench":
        from edge_tui.cli.bench import run as bench

        return bench(given)
    if command == "models":
        from edge_tui.cli.models import run as models

        return models(_settings({})[0], given)
    if command == "doctor":
        from edge_tui.cli.doctor import run as examine

        return examine(given)
    if command == "config":
        from edge_tui.cli.config import run as configure

        asked: dict[str, Any] = {name: given.pop(name) for name in ("what", "old") if name in given}
        settings, notices = _settings(given)
        return configure(asked, settings, [notice for notice in notices if notice.origin])
    if command == "history":
        from edge_tui.cli.history import run as history

        return history(given)
    if command == "serve":
        from edge_tui.cli import serve

        options = serve.take(given)
        return serve.run(*_settings(given), options)
    own = {
        name: given.pop(name)
        for name in ("prompt", "file", "json", "quiet", "n", "logprobs")
        if name in given
    }
    connect = {name: given.pop(name) for name in ("connect", "api_key_file") if name in given}
    if command is None:
        _need_terminal()
    settings, notices = _settings(given)
    if command == "run":
        from edge_tui.cli.run import run

        return run(settings, notices, asked=_set_names(given), **own)
    return _workbench(settings, notices, **connect)


def _settings(given: dict[str, Any]) -> tuple[Settings, list[Notice]]:
    """All layers; what a flag says wrongly is refused here, while the user looks at the command line."""
    from edge_tui.config.schema import Literal
    from edge_tui.config.settings import load

    overrides: dict[str, Any] = {}
    repeated: list[Notice] = []
    for key, value in given.items():
        if key not in ("config", "set", "template"):
            overrides[key] = Literal(value) if isinstance(value, str) else value
    from edge_tui.engine.text.template_variables import assignment

    for pair in given.get("template", []):
        try:
            name, variable = assignment(pair)
        except ValueError as error:
            raise UsageError(f"--template: {error}") from error
        repeated += _replaced(overrides, f"template.{name}", variable)
    for pair in given.get("set", []):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set takes NAME=VALUE, for example --set temperature=0.7, not {pair!r}.")
        repeated += _replaced(overrides, f"parameters.{name.strip()}", Literal(value.strip()))
    config = given.get("config")
    settings, notices = load(overrides, user_file=expand(config) if config else None)
    for notice in notices:
        if notice.origin.startswith("--"):
            raise UsageError(str(notice))
    return settings, [*notices, *repeated, *settings.ties()]


def _replaced(overrides: dict[str, Any], key: str, value: Any) -> list[Notice]:
    """Takes a flag's value; a notice if it takes the place of another one of the same name."""
    from edge_tui.config.names import flag_of
    from edge_tui.config.reader import Notice

    before = overrides.get(key, value)
    overrides[key] = value
    name = key.partition(".")[2]
    said = f"{flag_of(key)} {name} was given twice: {value} holds, {before} does not count."
    return [] if before == value else [Notice(said)]


def _set_names(given: dict[str, Any]) -> tuple[str, ...]:
    return tuple(pair.partition("=")[0].strip() for pair in given.get("set", []))


def _workbench(
    settings: Settings, notices: list[Notice], connect: str | None = None, api_key_file: str | None = None
) -> int:
    """The screen, over an engine in this process or over a server."""
    import gc

    # Nothing that is made before the first frame becomes garbage, and looking for some takes a tenth of it.
    gc.disable()
    from edge_tui.machine.telemetry import Telemetry, watched
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.app import run as start

    def engine() -> Any:
        from edge_tui.engine.local import LocalEngine

        return LocalEngine(settings.specs())

    def recorder() -> Any:
        from edge_tui.history.recorder import recorder_of

        return recorder_of(settings)

    if connect is not None:
        from edge_tui.engine.remote.machine import RemoteTelemetry

        base, key = _server(connect, api_key_file)
        remote = _connection(base, key, settings)
        telemetry = RemoteTelemetry(base, key)
        return start(EdgeApp(remote, settings, notices=notices, telemetry=telemetry, recorder=recorder))
    from edge_tui.tui.widgets.tour import toured

    app = EdgeApp(
        engine,
        settings,
        notices=notices,
        telemetry=Telemetry(watched(settings.device)),
        recorder=recorder,
        tour=settings.ui.tour and not toured(),
    )
    return start(app)


def _server(url: str, api_key_file: str | None) -> tuple[str, str]:
    """A server's address and key. What is wrong with them is told before the screen opens."""
    from edge_tui.engine.remote.wire import base_of
    from edge_tui.serve.options import OptionError, read_key

    try:
        return base_of(url), read_key(api_key_file)
    except (ValueError, OptionError) as error:
        raise UsageError(str(error)) from error


def _connection(base: str, key: str, settings: Settings) -> Callable[[], Any]:
    """Makes engines over a server."""
    model = settings.models.name if settings.source("models.name") == "--model" else ""

    def engine() -> Any:
        from edge_tui.engine.remote import RemoteEngine

        return RemoteEngine(base, key, model)

    return engine


def _need_terminal() -> None:
    # Textual reads standard input and paints on standard error.
    streams = {"standard input": sys.stdin, "standard output": sys.stdout, "standard error": sys.stderr}
    for name, stream in streams.items():
        if stream is None or not stream.isatty():
            raise UsageError(
                f"the workbench needs a terminal and {name} is none; in pipes, use `{PROGRAM} run`."
            )
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        raise UsageError(
            f"the workbench needs a terminal that can move its cursor, but TERM is"
            f" {os.environ.get('TERM') or 'not set'}; set TERM, or use `{PROGRAM} run`."
        )


def _say(sentence: str, status: int) -> int:
    print(f"{PROGRAM}: {sanitise(sentence, keep_newlines=False)}", file=sys.stderr)
    return status
