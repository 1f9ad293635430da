"""`edge-tui run --explain`: the reasons beside the text, and never in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from edge_tui.cli.main import main
from edge_tui.cli.parser import make_parser
from edge_tui.cli.why_output import WhyPrinter
from edge_tui.engine.events import Event, Explained, Failed
from edge_tui.engine.explanation import Candidate, Explanation, StageView
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Question, Request
from edge_tui.engine.remote.explanation_json import write_explanation
from tests.engine.explanations import assert_alike
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3))


@pytest.fixture
def run(model: str, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "90")
    flags = ("--no-chat", "-q", "--max-new-tokens", "4", "--seed", "4", "--strategy", "top_k")
    settings = ("--model", model, "--device", "cpu", "--precision", "float32", "--set", "temperature=2")

    def go(*args: str) -> tuple[int, str, str]:
        status = main(["run", *flags, *settings, *args])
        out, error = capfdbinary.readouterr()
        return status, out.decode(), error.decode()

    return go


def test_the_text_stays_alone_in_a_pipe(run: Any) -> None:
    _, text, told = run("Hello")
    assert told == ""
    assert run("Hello", "--explain")[:2] == (0, text)
    status, out, told = run("--explain", "Hello")  # what stands behind a bare flag is the prompt
    assert (status, out) == (0, text)
    assert [line.split()[0] for line in told.splitlines()] == ["#0", "#1", "#2", "#3"]
    assert all(" tokens were left; " in line for line in told.splitlines())


def test_named_tokens_have_their_ladder(run: Any) -> None:
    last = run("Hello", "--explain", "last")[2]
    assert last.startswith("── #3 ──\n")
    assert "top-k 50" in last
    assert max(map(len, last.splitlines())) <= 90
    both = run("Hello", "--explain", "0,3")[2]
    assert both.endswith(last)
    assert both.startswith("── #0 ──\n")


def test_json_has_a_line_for_each_and_the_summary_last(run: Any) -> None:
    status, out, told = run("Hello", "--explain", "--json", "--n", "2")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, told) == (0, "")
    assert [line["type"] for line in lines] == ["token"] * 8 + ["explanation"] * 8 + ["summary"]
    taken = {(line["row"], line["step"]): line["id"] for line in lines[:8]}
    for line in lines[8:16]:
        assert line["token"] == line["winner"] == taken[line["row"], line["step"]]


def test_the_numbers_are_those_of_the_engine(run: Any, model: str) -> None:
    engine = LocalEngine({"model": ModelSpec(model, device="cpu", precision="float32")})
    request = Request("Hello", "top_k", {"temperature": 2.0}, seed=4, max_length=4, chat=False)
    ids = watch(engine, request).ids
    number = engine.explain(Question(replace(request, prefix=tuple(ids[:2])), ids[2]))
    answers: list[Explained] = []

    def answered() -> bool:
        answers.extend(each for each in engine.poll() if isinstance(each, Explained))
        return bool(answers)

    until(answered)
    assert engine.close(60.0)
    assert answers[0].question == number
    (line,) = (each for each in run("Hello", "--explain", "2", "--json")[1].splitlines() if '"expl' in each)
    said = {name: value for name, value in json.loads(line).items() if name not in ("type", "step", "row")}
    assert_alike(said, write_explanation(answers[0].explanation))


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("Hello", "--explain", "7"), 1, "token 7 was asked for, but its tokens are 0 to 3."),
        (
            ("Hello", "--explain", "many"),
            2,
            "takes all, last or numbers of tokens (0,7), not 'many'.",
        ),
        (("Hello", "--explain", "1,-2"), 2, "--explain takes all, last or numbers"),
    ],
)
def test_tokens_that_are_none_are_refused(run: Any, args: tuple[str, ...], status: int, says: str) -> None:
    code, _, told = run(*args)
    assert code == status
    assert says in told
    assert told.count("\n") == 1


def test_the_documented_commands_are_commands() -> None:
    text = (ROOT / "docs" / "why.md").read_text(encoding="utf-8")
    for command in "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines():
        parsed = make_parser().parse_args(shlex.split(command, comments=True)[1:])
        assert parsed.command in ("run", "history")


def test_the_documented_example_is_what_the_command_says(
    capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "why.md").read_text(encoding="utf-8")
    command, documented = re.findall(r"An example, by `(.*?)`:\n\n```text\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.setenv("COLUMNS", "74")
    flags = ("--device", "cpu", "--precision", "float32", "--no-history")
    assert main([*shlex.split(command)[1:], *flags]) == 0
    told = capfdbinary.readouterr()[1].decode().split("── #3 ──\n")[1]
    number = re.compile(r"\d[\d,.]*")
    words = [[number.sub("N", line).split() for line in each.splitlines()] for each in (told, documented)]
    assert [line[:5] for line in words[0]] == [line[:5] for line in words[1]]
    numbers = [
        [float(each.strip(",.").replace(",", "")) for each in number.findall(it)] for it in (told, documented)
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.11)


def test_a_note_of_several_tokens_is_told_once() -> None:
    out = StringIO()
    printer = WhyPrinter(out, {})
    for number, note in enumerate(["Near.", "Near.", "Gone."]):
        printer.line(replace(WHY, note=note), f"#{number}")
    starts = [line.split()[0] for line in out.getvalue().splitlines()]
    assert starts == ["Near.", "#0", "#1", "Gone.", "#2"]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


WHY = Explanation(
    *(7, 7, 0.5, 2, 0.6, 1.0, True),
    stages=(StageView("top_k", "top-k 2", 2, 1, 0.1, "rank", 2.0),),
    candidates=(
        Candidate(7, " \x1b[31ma", -0.5, 0, (-0.4,), (1.0,), luck=0.5, sum=0.1),
        Candidate(8, " b", -1.0, 1, (-0.9,), (2.0,), luck=0.5, sum=-0.4),
        Candidate(9, " c", -3.0, 2, (-float("inf"),), (3.0,), 0, 0.5),
    ),
    sentence="“ a” had the luck.",
)


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_come_where_the_terminal_can(environment: dict[str, str], coloured: bool) -> None:
    plain, out = StringIO(), Terminal()
    for stream, variables in ((plain, {"COLUMNS": "70"}), (out, {"COLUMNS": "70", **environment})):
        printer = WhyPrinter(stream, variables)
        printer.ladder(WHY, "#0")
        printer.line(WHY, "#0")
    assert "\x1b" not in plain.getvalue()
    assert ("\x1b[31mcut\x1b[0m" in re.sub(r" +", "", out.getvalue())) == coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert [line.rstrip() for line in stripped.splitlines()] == plain.getvalue().splitlines()
    assert "\x1b[31ma" not in out.getvalue()


def test_ctrl_c_ends_the_reasons_and_leaves_the_summary(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts(LocalEngine):
        def explain(self, question: Question) -> int:
            if len(question.request.prefix) == 2:
                os.kill(os.getpid(), signal.SIGINT)
                return 10**6  # an answer that does not come
            return super().explain(question)

        def cancel(self, run: int | None = None) -> None:
            super().cancel(run)
            self.late = [Failed("The question was taken back.", run, code="cancelled")]

        def poll(self) -> list[Event]:
            late, self.late = getattr(self, "late", []), []
            return [*super().poll(), *late]

    monkeypatch.setattr("edge_tui.engine.local.LocalEngine", Interrupts)
    status, out, told = run("Hello", "--explain", "--json")
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert (status, told) == (130, "")
    assert kinds == ["token"] * 4 + ["explanation"] * 2 + ["summary"]
