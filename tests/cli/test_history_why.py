"""`edge-tui history why`: the reason that the run itself gave, or the record and what is in the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from edge_tui.cli.main import main
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.machine.devices import best_device
from tests.engine.explanations import assert_alike
from tests.engine.random_checkpoints import make_checkpoint

Call = Callable[..., tuple[int, str, str]]
MINE = """
from edge_tui.decoders.base import Filter, Param

class Mine(Filter):
    name, title, summary = "mine", "mine", "Halves."
    params = (Param("depth", 2.0, 1.0, 9.0, "How deep."),)

    def apply(self, z, p, s, rng):
        return z.masked_fill(z < z.amax(-1, keepdim=True) - p["depth"], -float("inf"))
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("COLUMNS", "90")

    def go(*args: str) -> tuple[int, str, str]:
        status = main(args)
        said = capsys.readouterr()
        return status, said.out, said.err

    return go


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny", arch="qwen2", seed=3)


@pytest.fixture
def run(call: Call, model: Path) -> Call:
    """Keeps a run of four tokens of the tiny model."""

    def go(*args: str) -> tuple[int, str, str]:
        strategy = () if "--strategy" in args else ("--strategy", "top_k", "--set", "temperature=2")
        flags = ("--no-chat", "-q", "--max-new-tokens", "4", "--seed", "4", *strategy, *args)
        where = ("--device", "cpu", "--precision", "float32")
        return call("run", "Hello", "--model", str(model), *where, *flags)

    return go


def lines(out: str, kind: str = "explanation") -> list[dict[str, Any]]:
    return [each for each in map(json.loads, out.splitlines()) if each["type"] == kind]


def edit(column: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what the history holds of its only run."""
    with closing(Store(default_path())) as store:
        ((text,),) = store.rows(f"SELECT {column} FROM details")
        data = json.loads(text)
        change(data)
        store.execute(f"UPDATE details SET {column} = ?", (json.dumps(data),))


def test_a_kept_run_has_the_reasons_that_it_gave(call: Call, run: Call) -> None:
    told = lines(run("--explain", "--json", "--n", "2")[1])
    for row in (0, 1):
        status, out, error = call("history", "why", "last", "all", "--row", str(row), "--json")
        assert (status, error) == (0, "")
        for here, there in zip(lines(out), [each for each in told if each["row"] == row], strict=True):
            assert_alike(here, there)
    ladder = call("history", "why", "last", "3")[1]
    assert ladder.startswith("── #3 ──\n")
    assert ladder == call("history", "why", "last", "last")[1]
    every = call("history", "why", "last")[1]
    assert len(every.splitlines()) == 4
    assert every == call("history", "why", "last", "all")[1]


def record_of(call: Call, *args: str) -> str:
    """Returns the reason why there is the record alone."""
    status, out, error = call("history", "why", "last", "2", *args)
    assert status == 1, out
    assert out.startswith("── #2 ──\n")
    assert " was drawn with " in out
    assert error.startswith("edge-tui: ")
    assert error.count("\n") == 1
    (line,) = lines(call("history", "why", "last", "2", "--json", *args)[1])
    assert (line["exactness"], line["winner"]) == ("record", line["token"])
    assert error == f"edge-tui: {line['note']}\n"
    own = line["candidates"][0]
    assert (own["id"], own["luck"], own["sum"]) == (line["token"], None, None)
    return error


def test_an_exported_page_has_the_ladder_of_tokens_that_are_named(
    call: Call, run: Call, model: Path, tmp_path: Path
) -> None:
    run()
    file = tmp_path / "run.html"
    sentence = lines(call("history", "why", "last", "1", "--json")[1])[0]["sentence"]
    assert call("history", "export", "last", "-o", str(file), "--why", "1") == (0, "", "")
    page = unescape(file.read_text())
    assert page.count(sentence[:30]) == 1
    shutil.rmtree(model)
    status, _, error = call("history", "export", "last", "-o", str(file), "--why", "0,1")
    assert (status, error.count("\n")) == (0, 1)
    assert sentence[:30] not in unescape(file.read_text())
    assert "--why takes" in call("history", "export", "last", "-o", str(file), "--why", "x")[2]


def test_a_model_that_is_gone_leaves_the_record(call: Call, run: Call, model: Path) -> None:
    before = lines(run("--json")[1], "token")[2]
    model.rename(model.with_name("elsewhere"))
    assert str(model) in record_of(call)
    (line,) = lines(call("history", "why", "last", "2", "--json")[1])
    assert line["token"] == before["id"]
    assert line["candidates"][0]["raw_logp"] == pytest.approx(before["logp"])
    assert line["entropy"] == pytest.approx(before["entropy"])


def test_a_context_that_no_longer_holds_the_prompt_leaves_the_record(
    call: Call, run: Call, model: Path
) -> None:
    run()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2}))
    assert "but the context holds 2" in record_of(call)


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        ("models", lambda models: models.clear(), "does not say which model wrote it"),
        (
            "models",
            lambda models: models["model"].update(tier="remote", architecture=""),
            "wrote this on a server that tells too little of a token",
        ),
        ("started", lambda begun: begun.update(strategy="nobodys"), "There is no strategy nobodys here"),
        (
            "started",
            lambda begun: begun["values"].update(gone={"value": 1.0, "source": "user"}),
            "top-k has no parameter gone any more",
        ),
    ],
)
def test_what_is_missing_is_said(call: Call, run: Call, column: str, change: Any, says: str) -> None:
    run()
    edit(column, change)
    assert says in record_of(call)


def test_another_device_and_other_versions_are_told_with_what_they_change(call: Call, run: Call) -> None:
    run()
    edit("models", lambda models: models["model"].update(device="cuda:7", precision="float16"))
    edit("versions", lambda versions: versions.update(torch="1.0", python="2.0"))
    status, out, error = call("history", "why", "last", "2", "--json")
    assert (status, error) == (0, "")
    (line,) = lines(out)
    assert line["exactness"] == "near"
    assert f" was float16 on cuda:7, here float32 on {best_device()}; torch was 1.0, here " in line["note"]
    assert "python" not in line["note"]
    (off,) = (text for name, text in line["facts"] if name == "off the record")
    assert float(off) < 1e-3
    assert line["winner"] == line["token"]
    every = call("history", "why", "last")[1].splitlines()
    assert every[0] == line["note"]
    assert [each.split()[0] for each in every[1:]] == ["#0", "#1", "#2", "#3"]


def test_other_weights_under_the_same_name_are_told(call: Call, run: Call, model: Path) -> None:
    run()
    file = model / "model.safetensors"
    weights = load_file(file)
    name = max(weights, key=lambda each: weights[each].numel())
    save_file(weights | {name: weights[name] * 1.01}, file, metadata={"format": "pt"})
    for line in lines(call("history", "why", "last", "--json")[1]):
        assert line["exactness"] == "near"
        assert (
            f"{model} gives other numbers than in this run, so its files have changed since." in line["note"]
        )
        assert line["epsilon"] > 4e-3


def test_a_strategy_of_the_users_own_is_the_file_that_it_was(call: Call, run: Call, tmp_path: Path) -> None:
    file = tmp_path / "own" / "mine.py"
    file.parent.mkdir()
    file.write_text(MINE)
    folder = ("--decoders", str(file.parent))
    run("--strategy", "mine", *folder)
    status, out, error = call("history", "why", "last", "2", *folder)
    assert (status, error) == (0, "")
    assert "mine" in out
    assert "There is no strategy mine here: name its folder with --decoders." in record_of(call)
    file.write_text(MINE.replace('depth"]', 'depth"] / 2'))
    assert "The file mine.py has changed since this run" in record_of(call, *folder)
    file.write_text(MINE)
    edit("versions", lambda versions: versions.pop("file mine.py"))
    (line,) = lines(call("history", "why", "last", "2", "--json", *folder)[1])
    assert line["note"].endswith("Whether the file mine.py has changed since this run was not recorded.")


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("last", "4"), 2, "token 4 was asked for, but its tokens are 0 to 3."),
        (("last", "x"), 2, "why takes a token's number, last or all, not 'x'."),
        (("last", "0", "--row", "1"), 2, "Row 1 was asked for, which the run does not have."),
        (("77", "0"), 1, "no run 77"),
    ],
)
def test_what_is_no_token_is_refused(
    call: Call, run: Call, args: tuple[str, ...], status: int, says: str
) -> None:
    run()
    code, out, error = call("history", "why", *args)
    assert (code, out) == (status, "")
    assert says in error
    assert error.count("\n") == 1
