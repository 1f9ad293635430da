"""Follows docs/writing-a-strategy.md to the letter: its commands, its file, its edits, its panel."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.tui.widgets.token_pane import TokenPane
from tests.tui.rendered import SAID, until, was_said

TEXT = (Path(__file__).parent.parent.parent / "docs" / "writing-a-strategy.md").read_text()
CODE = TEXT.partition("```python\n")[2].partition("```")[0]
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def folder(home: Path) -> Iterator[Path]:
    (command,) = [line for line in COMMANDS if line.startswith("mkdir")]
    made = Path(command.split()[-1]).expanduser()
    assert made.parent == home
    subprocess.run(["sh", "-c", command], check=True)
    decoders.load([made])
    yield made
    decoders.load()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_the_strategy_has_the_length_that_is_promised() -> None:
    assert len(CODE.splitlines()) <= 20
    assert "in 20 lines" in TEXT


async def test_in_the_app(folder: Path, demo: Any) -> None:
    app = demo(max_length=24, strategy="greedy")
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        file = folder / re.search(r"~/my-strategies/(\w+\.py)`", TEXT)[1]  # type: ignore[index]
        await until(pilot, lambda: app.session.engine, "the first frame, with which the watch begins")
        file.write_text(CODE)
        await until(pilot, lambda: was_said("my_top_a.py was read"), "read")
        bench.pane.focus()
        await pilot.press("s", *"my-top-a", "enter")
        await until(pilot, lambda: bench.run_params.decoder.name == "my_top_a", "chosen")
        names = [row.key for row in bench.run_params.rows()]
        assert names[:2] == ["a", "temperature"]
        bench.prompt.text = "def fibonacci(n):"
        await pilot.press("ctrl+j")

        def done(tokens: float) -> Callable[[], object]:
            """The run with this value of `a` has ended."""

            def look() -> bool:
                run = app.session.run
                values = run.started.values if run is not None and run.started is not None else {}
                return run.phase == "done" and values["a"].value == tokens if values else False

            return look

        await until(pilot, done(0.2), "a run")
        seed = app.session.run.started.seed

        edit(file, "0.2", "0.9")
        await until(pilot, lambda: bench.run_params.rows()[0].shown == "0.9", "the new default")
        await pilot.press("r")
        await until(pilot, done(0.9), "the same prompt again")
        assert app.session.run.started.seed == seed

        SAID.clear()
        edit(file, "prob.amax(", "prob.amaxx(")
        await until(pilot, lambda: was_said("my_top_a.py was read again"), "read")
        await pilot.pause(0.6)
        await pilot.press("r")
        await until(pilot, lambda: bench.view.error_panel.has_class("-shown"), "the panel")
        for line in TEXT.partition("```text\n")[2].partition("```")[0].splitlines():
            shown = f"{bench.view.error_panel.border_title}\n{bench.view.error_panel.render()}"
            assert line.rstrip() in shown, shown
        failed = app.session.run.id
        await pilot.press("r")
        await until(pilot, lambda: app.session.run.id > failed and done(0.9)(), "the last version that ran")

        edit(file, "prob.amaxx(", "prob.amax(")
        await until(pilot, lambda: not bench.view.error_panel.has_class("-shown"), "the panel closes")
        await pilot.press("r")
        await until(pilot, done(0.9), "it works again")

        # A mistake that keeps the file from being read leaves the last good version in use.
        edit(file, "z.softmax(-1)", "z.softmax(-1")
        await until(pilot, lambda: bench.view.error_panel.has_class("-shown"), "the panel")
        assert bench.view.error_panel.problem.line == 17
        assert "was never closed" in bench.view.error_panel.problem.sentence
        await pilot.press("r")
        before = app.session.run.id
        await until(pilot, lambda: app.session.run.id >= before and done(0.9)(), "the last good version")
        file.unlink()
        await until(pilot, lambda: "my_top_a" not in [d.name for d in bench.strategies.decoders], "gone")
        assert not bench.view.error_panel.has_class("-shown")


def test_in_pipes(folder: Path) -> None:
    (folder / "my_top_a.py").write_text(CODE)
    (command,) = [line for line in COMMANDS if line.startswith("edge-tui run")]
    words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(command)]
    done = subprocess.run(
        [sys.executable, "-m", "edge_tui", *words[1:], "--max-new-tokens", "8"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "        prob =",
            "        z[:, 0] = 0.0\n        prob =",
            "TopA.apply writes to z, which is not its own",
        ),
        pytest.param("-math.inf)", "math.inf)", "TopA.apply gave NaN or +inf", marks=pytest.mark.proof),
        pytest.param("return z", "z", "TopA.apply returned None", marks=pytest.mark.proof),
        ('title = "my-top-a"', "title = 3", "TopA has no title."),
    ],
)
async def test_a_relative_folder_has_its_panel(
    folder: Path, demo: Any, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    monkeypatch.chdir(folder.parent)
    file = folder / "my_top_a.py"
    file.write_text(CODE.replace(old, new))
    decoders.load([Path(folder.name)])
    app = demo(max_length=24, strategy="greedy")
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        if "my_top_a" in [decoder.name for decoder in bench.strategies.decoders]:
            bench.strategies.choose("my_top_a")
            bench.prompt.text = "def fibonacci(n):"
            bench.prompt.focus()
            await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.view.error_panel.has_class("-shown"), "the panel")
        shown = f"{bench.view.error_panel.border_title}\n{bench.view.error_panel.render()}"
        assert said in shown
        assert "▸" in shown
        assert shown.startswith("my_top_a.py, line ")


async def test_an_answer_of_a_strategy_that_changes_its_state_in_apply_stays_where_it_cannot_be_gone_on_from(
    folder: Path, demo: Any
) -> None:
    init = "    def init(self, env):\n        return {'n': env.prompt[:, :1].clone()}\n\n    def apply("
    code = CODE.replace("    def apply(", init).replace("prob = z", "s['n'].add_(1)\n        prob = z")
    (folder / "my_top_a.py").write_text(code)
    decoders.reload()
    app = demo(max_length=12, strategy="my_top_a")
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        bench.prompt.text = "def fibonacci(n):"
        bench.prompt.focus()
        await pilot.press("ctrl+j")
        ended = lambda: app.session.run is not None and app.session.run.phase == "done"  # noqa: E731
        await until(pilot, lambda: ended() and not app.session.unpainted, "a run")
        text = bench.pane.transcript.text
        bench.pane.post_message(TokenPane.TakeAlternative(3, 7))
        refusal = "run the prompt from its start"
        await until(pilot, lambda: was_said(refusal), refusal)
        await pilot.pause(0.1)
        assert bench.pane.transcript.text == text
        await pilot.press("r")
        await until(pilot, lambda: app.session.run.phase == "done", "the run from its start")
