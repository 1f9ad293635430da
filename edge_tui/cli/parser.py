"""Declares the command line's flags: those of the workbench, of every setting and of the small commands."""

from __future__ import annotations

import argparse
import sys
import textwrap
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from edge_tui import __version__
from edge_tui.cli import bench_flags, history_flags, serve_flags
from edge_tui.cli.arguments import Append, add_value
from edge_tui.cli.messages import PROGRAM
from edge_tui.errors import UsageError
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST = 256
"""Upper bound of counts that cost memory each."""
_MOST_CASES = 1_000_000
_CONFIG_HELP = "read this file instead of your own config.toml"


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would exit, and sanitises the help."""

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError` in place of printing the usage and exiting."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        # The help quotes titles and sentences of the user's own strategies. argparse itself would hide that
        # nobody reads any more.
        (file or sys.stderr).write(sanitise(message))


def make_parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Makes the parser. A flag that is absent does not appear in its result, so that it overrides nothing.

    Args:
        argv: The arguments to be parsed; the help looks in them for folders of the user's own strategies.
    """
    top = Parser(
        prog=PROGRAM,
        description="Watch a language model decode, token by token, under one strategy or another.",
        epilog="Defaults come from config.toml and EDGE_TUI_* variables; see README.md.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    add_value(top, "--connect", "URL", "decode on a server: edge-tui serve, or one with OpenAI's API")
    add_value(top, "--api-key-file", "FILE", "the key that the server wants to see")
    add_settings(top)
    commands = top.add_subparsers(dest="command", metavar="[run]", title="commands")
    run = _add_run(commands, argv)
    _add_score(commands)
    bench_flags.add(commands)
    _add_models(commands)
    _add_config(commands)
    _add_doctor(commands)
    _add_verify(commands)
    serve_flags.add(commands, add_settings)
    history_flags.add(commands)
    for each in (top, run):
        each.add_argument(
            "--no-history", dest="history.keep", action="store_false", help="leave nothing of it on disk"
        )
    return top


def _add_run(commands: Any, argv: Sequence[str] | None) -> argparse.ArgumentParser:
    """Adds the `run` command."""
    run: argparse.ArgumentParser = commands.add_parser(
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
    likeliest = "with --json: the N likeliest tokens of each step, up to 20"
    add_value(run, "--logprobs", "N", likeliest, kind=_count)
    add_value(
        run,
        "--proposing-ends",
        "STEP",
        "the step from which on a speculative strategy proposes nothing, as an earlier run did; -1 is never",
        kind=_step,
    )
    add_value(run, "--n", "N", "so many answers: samples in one batch, or a search's best", kind=_count)
    run.add_argument(
        "--explain",
        nargs="?",
        const="all",
        metavar="TOKENS",
        help="why tokens were taken, on standard error: all (one sentence each), last, or numbers (0,7)",
    )
    run.add_argument("-q", "--quiet", action="store_true", help="nothing on standard error but errors")
    add_settings(run)
    return run


def _add_score(commands: Any) -> None:
    """Adds the `score` command."""
    one = commands.add_parser(
        "score",
        help="how surprised a model is by a text: perplexity, bits per byte",
        description="Reads a text on its own, without a chat template, and prints its tokens, the sum of"
        " −log p in nats, the perplexity per token, and the bits per byte.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    one.add_argument("file", nargs="?", metavar="FILE", help="the text; - or nothing is standard input")
    one.add_argument("--json", action="store_true", help="one JSON object per token, then the sums")
    _add_model(one)
    add_value(one, "--config", "FILE", _CONFIG_HELP)


def _add_model(to: Any) -> None:
    """Adds the flags of the model that decodes."""
    add_value(
        to,
        "--model",
        "NAME",
        "demo/expert, an id in the local cache (org/name:Q4_K_M), a folder, a GGUF file, ollama:NAME",
        "models.name",
    )
    add_value(to, "--precision", "P", "auto, float32, bfloat16, float16, int8 or 4bit")
    add_value(to, "--device", "D", "auto, cpu, mps, cuda or cuda:N")
    add_value(to, "--context", "N", "positions to reserve; 0 is the model's limit")


def add_settings(to: argparse.ArgumentParser, screen: bool = True) -> None:
    """Adds the flags of settings; those of a screen or a stream of text only where there is one."""
    model = to.add_argument_group("model")
    _add_model(model)
    add_value(model, "--expert", "NAME", "larger model of a contrastive pair", "models.expert")
    add_value(model, "--amateur", "NAME", "smaller model of a contrastive pair", "models.amateur")
    add_value(model, "--draft", "NAME", "model that proposes in speculative decoding", "models.draft")
    for role, default in (("expert", "--device"), ("amateur", "--device"), ("draft", "the amateur's")):
        add_value(
            model, f"--{role}-device", "D", f"device of the {role}; else {default}", f"models.{role}_device"
        )

    decoding = to.add_argument_group("decoding")
    add_value(decoding, "--strategy", "NAME", "greedy, beam, top_k, top_p, min_p, …, or a chain: dry+min_p")
    add_value(decoding, "--chain", "STAGES", "stages around the strategy: --strategy beam --chain dry+min_p")
    add_value(
        decoding,
        "--set",
        "NAME=VALUE",
        "a strategy's parameter; may be repeated, for a list of texts too",
        action=Append,
    )
    add_value(decoding, "--mode", "MODE", "custom, exploratory or focused")
    add_value(decoding, "--seed", "N", "a whole number; auto or -1 draws one")
    decoding.add_argument(
        "--max-new-tokens", "--max-length", dest="max_length", metavar="N", help="most new tokens"
    )
    add_value(decoding, "--stop", "TEXT", "end at this text; may be repeated", action=Append)
    decoding.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, help="use the model's chat template"
    )
    decoding.add_argument(
        "--raw", dest="chat", action="store_false", help="complete the prompt as it stands (--no-chat)"
    )
    add_value(decoding, "--system", "TEXT", "system prompt for the chat template")
    variable = "a variable of the chat template, as in enable_thinking=false; may be repeated"
    add_value(decoding, "--template", "NAME=VALUE", variable, action=Append)
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
        add_value(rest, "--theme", "NAME", "theme of the workbench", "ui.theme")
    add_value(rest, "--config", "FILE", _CONFIG_HELP)
    add_value(
        rest, "--decoders", "DIR", "a folder with strategies of your own", "decoder_folders", action=Append
    )


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_MOST}, not {text!r}")
    return int(text)


def _step(text: str) -> int:
    if text != "-1" and (not text.isdigit() or int(text) > _MOST_CASES):
        raise argparse.ArgumentTypeError(f"must be a whole number from -1 to {_MOST_CASES:,}, not {text!r}")
    return int(text)


def _help_with_parameters(plain: Callable[[], str], argv: Sequence[str] | None) -> str:
    """Returns the help followed by every strategy's parameters, each described once."""
    from edge_tui import decoders
    from edge_tui.cli.flag_settings import load_settings

    partial_parser = Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    partial_parser.add_argument("--config")
    partial_parser.add_argument("--decoders", dest="decoder_folders", action="append")
    with suppress(UsageError):  # strategies of the user's own are where the settings say
        load_settings(vars(partial_parser.parse_known_args(argv)[0]))
    lines = ["parameters of each strategy, for --set:"]
    described: set[tuple[str, str, object]] = set()
    for decoder in decoders.strategies():
        lines += ["", f"  {decoder.name}: {decoder.summary}"]
        shared = []
        for param in decoder.params:
            if (key := (param.name, param.help, param.default)) in described:
                shared.append(param.name)
                continue
            described.add(key)
            about = f"{param.help} {param.limits()}; default {param.default_text}"
            lines += textwrap.wrap(
                f"{param.name:<20} {about}", 100, initial_indent=" " * 4, subsequent_indent=" " * 25
            )
        if shared:
            lines += textwrap.wrap(
                f"also: {', '.join(shared)}", 100, initial_indent=" " * 4, subsequent_indent=" " * 10
            )
    return plain() + "\n" + "\n".join(lines) + "\n"


def _add_models(commands: Any) -> None:
    """Adds the `models` command with its own subcommands."""
    models = commands.add_parser(
        "models",
        help="list the models here, download others",
        description="The models of this machine and of the hub; HF_TOKEN and HF_ENDPOINT are honoured.",
        allow_abbrev=False,
    )
    kinds = models.add_subparsers(dest="models", metavar="[list]", title="what")
    kinds.add_parser("list", help="what is here", description="Lists the models of this machine.")
    for name, text in (
        ("look", "what a model on the hub would take, before a download"),
        ("pull", "download a model into the local cache"),
    ):
        one = kinds.add_parser(name, help=text, description=f"Says {text}." if name == "look" else None)
        one.add_argument("repository", metavar="REPO", help="an id like Qwen/Qwen2.5-0.5B-Instruct")


def _add_config(commands: Any) -> None:
    """Adds the `config` command with its own subcommands."""
    config = commands.add_parser(
        "config",
        help="show the settings and where they come from",
        description="Prints every setting with its source; writes your own file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    config.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    kinds = config.add_subparsers(dest="what", metavar="[show]", title="what")
    kinds.add_parser("show", help="every setting and its source", description="Prints every setting.")
    kinds.add_parser(
        "init",
        help="write your own config.toml, every key commented out",
        description="Writes your own config.toml with every default as a comment; an existing one stays.",
    )
    old = kinds.add_parser(
        "import",
        help="take over an old YAML configuration",
        description="Reads an old YAML configuration and writes its settings into your own config.toml.",
    )
    old.add_argument("old", metavar="OLD.yaml", help="the file to read")


def _add_verify(commands: Any) -> None:
    """Adds the `verify` command."""
    verify = commands.add_parser(
        "verify",
        help="compare strategies with independent references",
        description="Compares each strategy with its references on random distributions; 1 if one differs.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    verify.add_argument("names", nargs="*", metavar="NAME", default=[], help="strategies (default: all)")
    cases = "random distributions for each comparison (default: %(default)s)"
    add_value(verify, "--cases", "N", cases, kind=_cases, default=1000)
    add_value(verify, "--json", "FILE", "write the findings there", "json_file", default="")
    verify.add_argument("-q", "--quiet", action="store_true", default=False, help="print what differs alone")
    add_value(verify, "--config", "FILE", _CONFIG_HELP)
    add_value(
        verify, "--decoders", "DIR", "a folder with strategies of your own", "decoder_folders", action=Append
    )


def _cases(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST_CASES:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_MOST_CASES:,}, not {text!r}")
    return int(text)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check this machine and terminal",
        description="Checks Python, torch, GPU, terminal, cache and disk, and says what to do about each.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object per check")
