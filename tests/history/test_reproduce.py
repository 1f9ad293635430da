"""The command that makes a stored run again: exact, quoted for a shell, and honest about what it lacks."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.cli import main
from edge_tui.engine.events import Finished, ParamChanged, Resolved
from edge_tui.engine.port import Message, Request
from edge_tui.history import formats
from edge_tui.history.formats.facts import facts
from edge_tui.history.reproduce import quote, reproduction
from edge_tui.history.restore import transcript_of
from edge_tui.history.runs import Entry, StoredRun
from tests.history.runs import LOADED, batch, started


def stored(prompt: Any = "Why?", *, begun: dict[str, Any] | None = None, **request: Any) -> StoredRun:
    entry = Entry(1, "ab", 0.0, "finished", "eos", LOADED.name, "top_p", 3, 0.1, "Why?", "x")
    return StoredRun(
        entry=entry,
        request=Request(prompt, strategy="top_p", **request),
        started=started(**(begun or {})),
        models={"model": LOADED},
        batches=(batch(["a ", "b ", "c "]),),
    )


def test_every_setting_that_decides_is_in_the_command() -> None:
    values = {"top_p": Resolved(0.1 + 0.2, "user"), "words": Resolved(("a b", "c"), "flag")}
    run = stored(
        "-x it's",
        begun={"seed": 41, "values": values},
        stop=("\n", "End"),
        system="Be brief.",
        template={"enable_thinking": False},
        control_tokens=True,
        samples=2,
        max_length=64,
    )
    assert reproduction(run).arguments == (
        "edge-tui", "run", "--model", "some/model", "--precision", "float32", "--device", "cpu",
        "--strategy", "top_p", "--set", "top_p=0.30000000000000004", "--set", "words=a b", "--set", "words=c",
        "--seed", "41", "--max-new-tokens", "64", "--n", "2", "--stop=\n", "--stop=End", "--chat",
        "--system=Be brief.", "--template", "enable_thinking=false", "--control-tokens", "--", "-x it's",
    )  # fmt: skip
    assert "--raw" in reproduction(replace(run, request=replace(run.request, chat=False))).arguments


def test_the_line_is_one_for_a_shell() -> None:
    run = stored("it's\n\x1b[31m $HOME `x` \u202e", begun={"threads": 2})
    line = reproduction(run).line
    assert line.startswith("OMP_NUM_THREADS=2 edge-tui run --model some/model ")
    assert line.isprintable()
    script = f"edge-tui() {{ printf '%s\\0' \"$@\"; }}; {line}"
    read = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")
    assert tuple(read[:-1]) == reproduction(run).arguments[1:]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30))
@settings(max_examples=40)
def test_a_quoted_text_is_printable_and_plain_ones_are_read_by_others(text: str) -> None:
    quoted = quote(text)
    assert quoted.isprintable()
    if not quoted.startswith("$"):
        assert shlex.split(quoted) == [text]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prefix": (1, 2)}, "goes on from 2 kept tokens"),
        ({"ids": (1, 2)}, "came as token ids"),
        (
            {"prompt": (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))},
            "a conversation",
        ),
        ({"prompt": "a\0b"}, "no command line takes"),
        ({"prompt": "a\ud83d"}, "no command line takes"),
    ],
)
def test_a_run_that_no_command_makes_says_why(changes: dict[str, Any], reason: str) -> None:
    run = stored()
    again = reproduction(replace(run, request=replace(run.request, **changes)))
    assert again.arguments == ()
    assert again.line.startswith("no command: ")
    assert reason in again.line


def test_what_the_command_lacks_is_its_comment() -> None:
    run = stored()
    cut = replace(
        run, entry=replace(run.entry, reason="cancelled"), changes=(ParamChanged(1, "top_p", 0.5, 2, 1),)
    )
    line = reproduction(cut).line
    command, _, comment = line.partition("  # ")
    assert shlex.split(command) == list(reproduction(run).arguments)
    assert "top_p 0.5 from #1" in comment
    assert "broke off after 3 tokens" in comment
    assert "prompt.txt" in reproduction(stored("long " * 40_000)).line
    assert "not installed" in reproduction(stored(begun={"strategy": "no_such"})).line
    remote = replace(LOADED, tier="remote", device="cuda:0 of far.example")
    far = reproduction(replace(run, models={"model": remote}))
    assert far.arguments[7:9] == ("cuda:0", "--strategy")
    assert "far.example, which decoded" in far.line
    several = {"expert": LOADED, "amateur": replace(LOADED, device="cuda:1"), "draft": LOADED}
    assert reproduction(replace(run, models=several)).arguments[2:16] == (
        "--expert", "some/model", "--amateur", "some/model", "--draft", "some/model",
        "--precision", "float32", "--device", "cpu", "--amateur-device", "cuda:1", "--draft-device", "cpu",
    )  # fmt: skip
    several["draft"] = replace(LOADED, precision="int8")
    assert "different precisions" in reproduction(replace(run, models=several)).line
    assert "no command" in reproduction(replace(run, models={})).line


def test_the_command_ends_proposing_where_the_run_did() -> None:
    run = stored(begun={"strategy": "speculative"})
    assert "proposing ends depends on time" in reproduction(run).line
    ended = Finished(1, "eos", 3, 0.1, 0.2, proposing_ended=77)
    again = reproduction(replace(run, finished=ended))
    assert "--proposing-ends=77" in again.arguments
    assert "depends on time" not in again.line
    assert (
        "--proposing-ends=-1" in reproduction(replace(run, finished=replace(ended, proposing_ended=-1))).line
    )
    other = replace(stored(), finished=replace(ended, proposing_ended=None))
    assert "proposing" not in reproduction(other).line


def test_old_runs_say_that_the_machine_is_not_recorded() -> None:
    old = dict(facts(replace(stored(), versions={})))
    assert (old["edge-tui"], old["device"], old["kernels"]) == ("not recorded",) * 3
    machine = {"version": "9.1", "device_name": "A GPU", "kernels": "fused", "threads": 2}
    new = dict(facts(stored(begun=machine)))
    assert (new["edge-tui"], new["device"], new["kernels"]) == ("9.1", "A GPU", "flat, fused, 2 threads")
    assert (new["rows"], new["chat template"], new["seed"]) == ("1", "on", "7")


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_every_format_has_the_command_and_the_machine(kind: str) -> None:
    run = stored("Why is <it> & so?", begun={"version": "9.1", "device_name": "A GPU", "seed": 4_242})
    written = formats.render(kind, run, transcript_of(run), {}).decode()
    for part in ("--seed 4242", "9.1", "A GPU", "--device cpu"):
        assert part in written, part


Call = Callable[..., str]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process, and returns what it wrote."""

    def go(*args: str) -> str:
        capfd.readouterr()
        assert main.main(list(args)) == 0
        return capfd.readouterr().out

    return go


def exported(call: Call, file: Path) -> dict[str, Any]:
    call("history", "export", "last", "-o", str(file))
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def made_again(call: Call, run: dict[str, Any]) -> list[int]:
    """Runs the command of an exported run; returns the ids of all rows."""
    program, command, *flags = run["reproduce"]["arguments"]
    assert (program, command) == ("edge-tui", "run")
    lines = [json.loads(line) for line in call(command, "--json", "-q", *flags).splitlines()]
    return [line["id"] for line in lines if line["type"] == "token"]


def test_an_exported_run_is_made_again_by_its_command(call: Call, tmp_path: Path) -> None:
    flags = ["--set", "temperature=1.3", "--max-new-tokens", "24", "--stop", "\n\n\n", "--system", "Talk."]
    call("run", *flags, "--device", "cpu", "--strategy", "min_p", "it's <b>\nso")
    run = exported(call, tmp_path / "run.json")
    threads, _, _ = run["reproduce"]["line"].partition(" ")
    assert threads == f"OMP_NUM_THREADS={run['started']['threads']}"
    ids = made_again(call, run)
    assert len(ids) > 4
    assert ids == [token["id"] for token in run["tokens"]]
    started = exported(call, tmp_path / "again.json")["started"]
    assert started["version"]
    assert started["device_name"]
    assert started["kernels"] == "one compiled call"


@pytest.mark.proof
@pytest.mark.parametrize("strategy", [each.name for each in decoders.strategies()])
def test_the_command_of_every_strategy_makes_its_run_again(strategy: str, call: Call, tmp_path: Path) -> None:
    call("run", "--strategy", strategy, "--max-new-tokens", "10", "--n", "1", "def f(x):")
    run = exported(call, tmp_path / "run.json")
    assert made_again(call, run) == [token["id"] for token in run["tokens"]]
