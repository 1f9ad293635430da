"""The command line as a user meets it: a process, its two streams, its exit status, a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest

from edge_tui import __version__
from edge_tui.bench.report import Results
from edge_tui.cli import main
from edge_tui.cli.run_output import TextWriter
from edge_tui.engine.events import TokenBatch
from edge_tui.history.store import Store
from edge_tui.util import logs
from tests.engine.random_checkpoints import make_checkpoint
from tests.history.runs import WORDS, keep
from tests.tui.transcripts import batch

COMMAND = [sys.executable, "-m", "edge_tui"]
RED = "\x1b[31m"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3))


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


Edge = Callable[..., Done]


@pytest.fixture
def edge(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Edge:
    """Runs a command in this process."""

    def run(*args: str, stdin: bytes = b"", **env: str) -> Done:
        with monkeypatch.context() as here:
            here.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            for name, value in env.items():
                here.setenv(name, value)
            try:
                status = main.main(args)
            except SystemExit as left:  # as argparse does after help and version
                status = int(left.code or 0)
        return Done(status, *capfdbinary.readouterr())

    return run


def error(done: Done | subprocess.CompletedProcess[bytes]) -> str:
    """The one line that was said."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("edge-tui: ")
    return lines[0]


def test_version_and_help(edge: Edge) -> None:
    done = edge("--help")
    assert done.returncode == 0
    assert all(word in done.stdout.decode() for word in ("run", "--strategy", "--set", "--decoders"))
    assert edge("--version").stdout.decode().strip() == f"edge-tui {__version__}"


# Refusals


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "edge-tui run"),
        (("--frob",), "--frob"),
        (("run", "x", "--mode", "wild"), "exploratory"),
        (("run", "x", "--seed", "-2"), "whole number"),
        (("run", "x", "--seed", str(2**63)), f"to {2**63 - 1}"),
        (("run", "x", "--max-new-tokens", "0"), "from 1"),
        (("run", "x", "--strategy", "dice"), "greedy"),
        (("run", "x", "--set", "temperature"), "NAME=VALUE"),
        (("run", "x", "--set", "temperature=99"), "from 0 to 5"),
        (("run", "x", "--set", "tempratur=1"), 'did you mean "temperature"? There is'),
        (("run", "x", "--set", "nonsense=1"), "There is repetition_penalty, presence_penalty,"),
        (("run", "x", "--set", "top_k.nonsense=1"), "There is top_k, temperature"),
        (("run", "x", "--strategy", "greedy", "--set", "top_p=0.5"), "greedy has no parameter"),
        (("run", "x", "-f", "y"), "two prompts"),
        (("run", "-f", "/nowhere/at/all"), "/nowhere/at/all"),
        (("run", "-f", "/dev/zero"), "64,000,000 bytes"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(edge: Edge, args: tuple[str, ...], says: str) -> None:
    done = edge(*args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in error(done)


def test_prompt_that_is_not_utf8(edge: Edge) -> None:
    done = edge("run", stdin=b"ab\xff")
    assert done.returncode == 2
    assert "byte 2" in error(done)


def test_engine_failure_is_one_line_and_status_1(edge: Edge) -> None:
    done = edge("run", "x", "--model", "nobody/nothing", "-q")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "nobody/nothing" in error(done)


def test_hostile_names_reach_the_terminal_as_text(edge: Edge) -> None:
    done = edge("run", "x", "--model", f"./{RED}x", "-q")
    assert done.returncode == 1
    assert b"\x1b" not in done.stderr


def test_dumb_terminal_is_refused() -> None:
    child = pexpect.spawn(COMMAND[0], COMMAND[1:], env={**os.environ, "TERM": "dumb"}, timeout=30)
    child.expect("edge-tui run")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2


def test_output_that_is_no_terminal_is_refused() -> None:
    child = pexpect.spawn("/bin/sh", ["-c", f"{' '.join(COMMAND)} | cat"], timeout=30, env=dict(os.environ))
    child.expect("standard output is none.*edge-tui run")
    child.expect(pexpect.EOF)


# run


def test_run_streams_text_alone_to_stdout(edge: Edge, model: str) -> None:
    args = ("run", "Hello", "--model", model, "--max-new-tokens", "12", "--seed", "5", "--no-chat")
    first, second = edge(*args), edge(*args)
    assert first.returncode == 0, first.stderr
    assert first.stdout
    assert first.stdout == second.stdout
    assert b"seed 5" in first.stderr
    quiet = edge(*args, "-q")
    assert (quiet.stdout, quiet.stderr) == (first.stdout, b"")


def test_prompt_comes_from_argument_file_or_stdin(edge: Edge, model: str, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Hello\n")
    common = ("--model", model, "--strategy", "greedy", "--max-new-tokens", "8", "--no-chat", "-q")
    outputs = {
        edge("run", "Hello", *common).stdout,
        edge("run", "-f", str(tmp_path / "prompt"), *common).stdout,
        edge("run", *common, stdin=b"Hello\n").stdout,
        edge("run", "-f", "-", *common, stdin=b"Hello").stdout,
    }
    assert len(outputs) == 1
    assert outputs != {b""}


def test_flags_before_the_command_count(edge: Edge, model: str) -> None:
    args = ("--model", model, "--max-new-tokens", "3")
    done = edge(*args, "run", "Hello", "--json", "-q", "--seed", "3")  # another might end the text sooner
    assert len(done.stdout.splitlines()) == 4, done.stderr


def test_a_repeated_flag_counts_on_both_sides_of_the_command(edge: Edge) -> None:
    before = ("--set", "temperature=0.5", "--stop", "a", "--template", "x=1", "--seed", "4")
    after = ("--set", "top_p=0.8", "--stop", "b", "--template", "y=2", "--seed", "5")
    done = edge(*before, "run", "Hello", "--json", "-q", "--max-new-tokens", "2", *after)
    summary = json.loads(done.stdout.splitlines()[-1])
    parameters = {name: each["value"] for name, each in summary["parameters"].items()}
    assert (parameters["temperature"], parameters["top_p"]) == (pytest.approx(0.5), pytest.approx(0.8))
    assert (summary["settings"]["stop"], summary["settings"]["template"]) == (["a", "b"], {"x": 1, "y": 2})
    assert summary["seed"] == 5


def test_json_tells_where_each_value_came_from_and_who_lost(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('mode = "exploratory"\nseed = 3\n')
    args = ("run", "Hello", "--json", "--max-new-tokens", "1", "--config", str(tmp_path / "c.toml"))
    done = edge(*args, "--set", "temperature=0.9", "--set", "temperature=0.7", EDGE_TUI_SEED="4")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["parameters"]["temperature"] == {
        "value": pytest.approx(0.7),
        "source": "--set",
        "lost": [{"key": "mode", "value": 1.5, "source": "c.toml:1", "mode": "exploratory"}],
    }
    assert summary["parameters"]["top_p"] == {"value": 0.9, "source": "default"}
    assert (summary["seed"], summary["sources"]["seed"], summary["sources"]["device"]) == (
        4,
        "EDGE_TUI_SEED",
        "default",
    )
    assert summary["lost"] == {"seed": [{"key": "seed", "value": 3, "source": "c.toml:2"}]}
    assert b"--set temperature was given twice: 0.7 holds, 0.9 does not count." in done.stderr


@pytest.mark.parametrize(
    "command", [("models", "list"), ("doctor",), ("history", "list"), ("bench", "speed")]
)
def test_flags_before_a_command_that_has_none_are_refused(edge: Edge, command: tuple[str, ...]) -> None:
    done = edge("--seed", "7", *command)
    assert done.returncode == 2
    assert f"--seed has no meaning for {command[0]}" in error(done)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("enable_thinking", "NAME=VALUE"),
        ("x=high", "with its quotes"),
        ("x=False", "with its quotes"),
        ("x=1\ny=2", "must be a value"),
        ("tools=[]", "by edge-tui itself"),
        ("a-b=1", "letters, digits and _"),
        ("x=NaN", "finite"),
    ],
)
def test_template_variables_that_cannot_be_used_are_refused(edge: Edge, pair: str, says: str) -> None:
    done = edge("run", "Hello", "--template", pair)
    assert done.returncode == 2
    assert says in error(done)


def test_json_is_one_object_a_token_and_a_summary(edge: Edge, model: str) -> None:
    args = ("run", "Hello", "--model", model, "--max-new-tokens", "6", "--no-chat", "-q", "--seed", "3")
    done = edge(*args, "--json", "--set", "temperature=0.7")
    *tokens, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [token["step"] for token in tokens] == list(range(6))
    assert all(token["logp"] <= 0 and token["rank"] >= 0 for token in tokens)
    assert all(token["margin"] > 0 and token["candidate_count"] > 1 for token in tokens)
    assert summary["type"] == "summary"
    assert (summary["new_tokens"], summary["seed"], summary["finish_reason"]) == (6, 3, "length")
    # A random model may stop inside a character; the summary's text then shows that.
    assert summary["text"].rstrip("\ufffd") == "".join(token["text"] for token in tokens).rstrip("\ufffd")
    assert summary["parameters"]["temperature"] == {"value": pytest.approx(0.7), "source": "--set"}
    plain = edge(*args, "--set", "temperature=0.7")
    assert plain.stdout.decode() == summary["text"]


def test_beams_print_the_answer_once(edge: Edge, model: str) -> None:
    args = (
        "run",
        "Hello",
        "--model",
        model,
        "--strategy",
        "beam",
        "--max-new-tokens",
        "6",
        "--no-chat",
        "-q",
    )
    plain, lines = edge(*args), edge(*args, "--json")
    summary = json.loads(lines.stdout.splitlines()[-1])
    assert plain.stdout.decode() == summary["text"]
    assert summary["score"] < 0
    tokens = [json.loads(line, parse_constant=pytest.fail) for line in lines.stdout.splitlines()[:-1]]
    assert {token["row"] for token in tokens} == {0, 1, 2, 3}
    assert None in {token["finished"] for token in tokens}, "null where no beam has ended"


def test_configuration_and_its_notices_reach_run(edge: Edge, home: Path, model: str) -> None:
    path = home / "config" / "edge-tui" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'max_length = 4\nseed = 3\nmodee = "x"\n[models]\nname = "{model}"\n')
    done = edge("run", "Hello", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["new_tokens"] == 4
    assert f"{path}:3: modee".encode() in done.stderr


# The seed is fixed: a random model may well end its text with the first token.
LONG = ("run", "Hello", "--max-new-tokens", "1900", "--no-chat", "--strategy", "top_k", "--seed", "1")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_without_a_traceback(
    edge: Edge, model: str, number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, before = TextWriter.tokens, signal.getsignal(number)

    def tokens(self: TextWriter, batch: TokenBatch) -> None:
        written(self, batch)
        for _ in range(2 if number == signal.SIGTERM else 1):  # `timeout` tells the process and its group
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TextWriter, "tokens", tokens)
    done = edge(*LONG, "--model", model)
    assert done.returncode == status
    assert done.stdout
    assert b"1900 tokens" not in done.stderr
    assert b"Traceback" not in done.stderr
    assert signal.getsignal(number) == before


def test_a_reader_that_leaves_ends_it_silently(model: str) -> None:
    order = [*COMMAND, *LONG, "--model", model]
    with subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.read(1)
        run.stdout.close()
        assert run.wait(timeout=60) == 141
        assert b"Traceback" not in run.stderr.read()


PRINTING = ["--help", "--version", "run --help", "models", "models list", "config", "doctor", "bench --help"]
PRINTING += ["history list", "history show last", "history diff last last", "history search river"]
PRINTING += [f"history export last --format {kind}" for kind in ("md", "html", "json", "svg")]
CHOICE = ("run --help", "config", "history export last --format md")
"""Of argparse, in lines, and in bytes; `make proof` tries all."""


@pytest.mark.parametrize(
    "command", [pytest.param(each, marks=() if each in CHOICE else pytest.mark.proof) for each in PRINTING]
)
def test_every_command_that_prints_ends_quietly_where_nobody_reads(command: str, tmp_path: Path) -> None:
    keep(Store(tmp_path / "edge-tui" / "history.db"), "the river")
    read, write = os.pipe()
    os.close(read)
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    env.pop("PYTHONUNBUFFERED", None)  # what is held until the end is the harder case
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *command.split()], stdout=pipe, stderr=subprocess.PIPE, timeout=60, env=env
        )
    assert done.stderr == b""
    assert done.returncode in (141, 0)  # from Python 3.12 on argparse itself says nothing of it


LONG_OUTPUT = ["history show last", "history list --json -n 0", "bench compare a.json a.json"]
LONG_OUTPUT += [f"history export last --format {kind}" for kind in ("md", "json")]


@pytest.mark.parametrize(
    "command", [pytest.param(each, marks=() if "show" in each else pytest.mark.proof) for each in LONG_OUTPUT]
)
def test_a_reader_that_leaves_a_long_output_ends_it_quietly(command: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "edge-tui" / "history.db")
    for _ in range(200 if "list" in command else 0):
        keep(store, "the river " + 400 * "x")
    keep(store, "the river", [*WORDS, 100_000 * "word "])
    results = Results("speed", tmp_path / "a.json")
    results.rows += [{"model": f"m{n}", "who": "edge", "tokens_per_second": 2.0} for n in range(2000)]
    results.save()
    order, env = [*COMMAND, *command.split()], {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    env.pop(
        "PYTHONUNBUFFERED", None
    )  # else one long write ends short where its reader leaves, without an error
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(order, **pipes, env=env, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)


def test_a_refusal_that_nobody_reads_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run([*COMMAND, "nothing-of-this-name"], stdout=pipe, stderr=pipe, timeout=60)
    assert done.returncode == 141


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1
    assert "no space left" in error(done).lower()


def test_closed_streams_are_nothing() -> None:
    shell = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} models <&- >&-"], stderr=subprocess.PIPE, timeout=60
    )
    assert (shell.returncode, shell.stderr) == (0, b"")


def test_models_alone_lists_them(edge: Edge) -> None:
    assert edge("models").stdout == edge("models", "list").stdout
    assert b"demo/expert" in edge("models").stdout


def test_terminal_sees_escapes_and_pipes_get_them() -> None:
    """The writer's two faces, on the same text."""
    read, write = os.pipe()
    leader, follower = os.openpty()
    with os.fdopen(write, "w") as pipe, os.fdopen(follower, "w") as terminal:
        for out in (pipe, terminal):
            TextWriter(out).tokens(batch([f"{RED}a"]))
    assert os.read(read, 100) == f"{RED}a".encode()
    assert os.read(leader, 100) == "␛[31ma".encode()
    for descriptor in (read, leader):
        os.close(descriptor)


def test_latin1_locale_still_gets_utf8() -> None:
    code = "from edge_tui.cli.standard_streams import prepare; prepare(); print('é‹')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
        timeout=30,
    )
    assert done.stdout.decode() == "é‹\n", done.stderr


# Crashes


def test_crash_is_one_line_and_a_log_without_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = "hf_" + "Q" * 30
    monkeypatch.setenv("MY_API_KEY", "canary-value-1")

    def broken(*_: object) -> int:
        raise RuntimeError(f"sent {canary} and canary-value-1 to http://me:pass@host/")

    monkeypatch.setattr(main, "_dispatch", broken)
    assert main.main(["run", "x"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    (log,) = (home / "state" / "edge-tui").glob("crash-*.log")
    assert str(log) in said
    assert "RuntimeError" in log.read_text()
    for text in (said, log.read_text()):
        assert not any(secret in text for secret in (canary, "canary-value-1", "me:pass"))
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_crash_without_a_place_for_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    def broken(*_: object) -> int:
        raise RuntimeError("oh")

    monkeypatch.setattr(main, "_dispatch", broken)
    assert main.main([]) == 1
    assert "no log could be written" in capsys.readouterr().err


def test_only_the_last_crash_logs_stay(home: Path) -> None:
    for second in range(logs.MAX_FILES + 3):
        logs.write_detail(f"number {second}", now=1_800_000_000 + second)
    kept = sorted((home / "state" / "edge-tui").glob("crash-*.log"))
    assert len(kept) == logs.MAX_FILES
    assert "number 3" in kept[0].read_text()
