"""run, serve and history report an error in a user's strategy; the screen has tests of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tui import decoders
from edge_tui.cli.main import main
from tests.serve.serving import Running, events, serving

TEXT = """from edge_tui.decoders.base import Filter


class Mine(Filter):
    name = "mine"
    title = "mine"
    summary = "Breaks in its fifth step, in its first, or before it."

    def init(self, env):
        import torch

        return {"n": torch.zeros(env.rows, 1, device=env.device)}

    def apply(self, z, p, s, rng):
        s["n"] += 1
        return z.masked_fill(s["n"] == 5, float("nan"))
"""
BREAKS = {
    "a step": (TEXT, "mine.py, line 14: At token 4, Mine.apply gave NaN or +inf", 4),
    "the first step": (TEXT.replace("== 5", "== 1"), "mine.py, line 14: Mine.apply gave NaN or +inf", 0),
    "an error": (
        TEXT.replace("z.masked", "z.maskd"),
        "mine.py, line 16: Mine.apply raised AttributeError",
        0,
    ),
    "init": (TEXT.replace("torch.zeros(env", "torch.zero(env"), "mine.py, line 12: Mine.init raised", 0),
}


@pytest.fixture(params=BREAKS)
def broken(request: pytest.FixtureRequest, home: Path) -> Iterator[tuple[str, int]]:
    """Writes a file to the user's folder; gives the sentence of its error, and the tokens before."""
    text, sentence, count = BREAKS[request.param]
    file = home / "config" / "edge-tui" / "decoders" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    decoders.load([file.parent])
    yield sentence, count
    decoders.load()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def test_run_and_history(broken: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    sentence, count = broken
    assert main(["run", "import os", "--strategy", "mine", "-q", "--max-new-tokens", "8", "--seed", "1"]) == 1
    assert capsys.readouterr().err.startswith(f"edge-tui: {sentence}")
    assert main(["history", "list"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{count} tok failed" in line
    assert main(["history", "show", "last"]) == 0
    assert sentence in capsys.readouterr().out


def test_serve(broken: tuple[str, int], server: Running) -> None:
    sentence, count = broken
    body = {"prompt": "import os", "strategy": "mine", "max_length": 8}
    answer = server.post("/infer", body)
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["message"].startswith(sentence)
    assert (error["type"], error["code"]) == ("server_error", "strategy_error")
    with server.client() as client, client.stream("POST", "/infer/stream", json=body) as response:
        if response.status_code == 500:  # the run failed before the stream had begun
            response.read()
            assert count == 0
            assert response.json()["error"] == error
            return
        sent = list(events(response.iter_lines()))
    assert [kind for kind, _ in sent].count("token") == count
    assert sent[-1][0] == "error"
    assert sent[-1][1]["error"] == error


def test_a_strategy_that_cannot_be_read_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "mine.py"
    file.write_text(TEXT.replace("summary", "sumary"))
    try:
        assert main(["run", "import os", "--strategy", "mine", "--decoders", str(home)]) == 2
    finally:
        decoders.load()
    assert f"{file}, line 4: Mine has no summary." in capsys.readouterr().err
