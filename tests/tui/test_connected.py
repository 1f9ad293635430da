"""The workbench over a server: what it can do is there, what it cannot is grey and says why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.remote import RemoteEngine
from edge_tui.engine.remote.http_client import base_url
from edge_tui.engine.remote.telemetry import RemoteTelemetry
from edge_tui.tui.app import EdgeApp
from tests.tui.engines import PictureEngine

pytest.importorskip("fastapi", reason="the server's libraries are not installed")

from tests.serve.serving import Running, serving
from tests.tui.rendered import lines, until
from tests.tui.test_end_to_end import Terminal


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


async def test_what_an_engine_refuses_is_grey_and_says_why() -> None:
    engine = PictureEngine()
    engine.refusals = {"beam": "That server has no beams."}
    app = EdgeApp(lambda: engine, Settings(), theme_folders=[resources.themes()])
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        await until(pilot, lambda: bench.view.strategy_list.refusals)
        listed = bench.view.strategy_list.render()
        beam = next(span for span in listed.spans if listed.plain[span.start : span.end].strip() == "beam")
        assert beam.style == "$text-disabled"
        assert "–" in listed.plain, "and without colour it has no key"
        before = bench.run_params.decoder.name
        number = [decoder.name for decoder in bench.strategies.decoders].index("beam") + 1
        bench.action_digit(number)
        await pilot.pause()
        assert bench.run_params.decoder.name == before
        assert "no beams" in str(bench.view.messages.render())


@pytest.mark.proof
async def test_a_prompt_is_read_by_a_server_of_ours(server: Running) -> None:
    app = EdgeApp(
        lambda: RemoteEngine(base_url(server.url)),
        replace(Settings(), strategy="greedy"),
        theme_folders=[resources.themes()],
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.session.loaded)
        app.workbench.prompt.insert("def main(")
        app.workbench.action_read_prompt()
        await until(pilot, lambda: "H after this point" in "\n".join(lines(app)))
        shown = "\n".join(lines(app))
        assert "def main(" in shown
        assert "greedy takes “" in shown


async def test_a_run_over_a_server_of_ours(server: Running) -> None:
    app = EdgeApp(
        lambda: RemoteEngine(base_url(server.url)),
        replace(Settings(), strategy="greedy", max_length=12),
        telemetry=RemoteTelemetry(base_url(server.url), interval=0.05),
        theme_folders=[resources.themes()],
    )
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        await until(pilot, lambda: bench.view.gauge.sample is not None)
        assert (
            str(bench.view.gauge.border_title) == f"gauge of {base_url(server.url).removeprefix('http://')}"
        )
        assert "process" in bench.view.gauge.render().plain
        await until(pilot, lambda: "model" in app.session.loaded)
        assert not bench.view.strategy_list.refusals
        bench.prompt.text = "def main("
        bench.action_run()
        await until(pilot, lambda: app.session.run is not None and app.session.run.finished is not None)
        run = app.session.run
        assert run is not None
        assert run.transcript is not None
        expected = server.post("/infer", {"prompt": "def main(", "max_length": 12}).json()["output"]
        assert run.transcript.text == expected
        token = run.transcript.token(3)
        assert len(token.top) == 20
        assert app.session.engine is not None
        assert all(app.session.engine.decode([other.id for other in token.top]))


@pytest.mark.proof
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_flag_opens_the_workbench_over_a_server(server: Running, home: Path) -> None:
    terminal = Terminal(
        home, "--connect", server.url, "--strategy", "greedy", "--set", "repetition_penalty=1"
    )
    try:
        terminal.see("demo/expert")
        terminal.see("127.0.0.1")
        terminal.press("import ")
        terminal.press("\n")
        expected = server.post("/infer", {"prompt": "import ", "max_length": 8}).json()["output"]
        terminal.see(expected.split()[0])
    finally:
        terminal.child.close(force=True)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--connect", "ftp://x"], "no address"),
        (["--connect", "http://u:p@x"], "EDGE_TUI_API_KEY"),
        (["--connect", "http://x", "run", "hi"], "run works on this machine"),
    ],
)
def test_what_cannot_be_connected_to(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_tui.cli import main, workbench

    monkeypatch.setattr(workbench, "_require_terminal", lambda: None)
    assert main.main(flags) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "u:p" not in said
