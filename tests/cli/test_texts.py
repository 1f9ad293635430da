"""Parameters that are text on the command line, and in what it prints and keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.cli.main import main
from edge_tui.history.formats.lossless import load
from tests.ban import write_ban
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3))


@pytest.fixture
def folder(home: Path) -> Iterator[Path]:
    yield write_ban()
    decoders.load()


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    status = main(["run", "Hello", "--strategy", "ban", "--max-new-tokens", "60", "--seed", "4", *flags])
    return (status, *capsys.readouterr())


def test_a_list_of_texts_takes_one_flag_each(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, plain, _ = run(capsys, "--model", model, "-q")
    assert status == 0
    assert {"e", "o"} <= set(plain)
    words = ("--set", "words=e", "--set", "words=o")
    status, banned, told = run(capsys, "--model", model, *words)
    assert status == 0
    assert banned
    assert not {"e", "o"} & set(banned)
    assert "twice" not in told
    _, first, told = run(capsys, "--model", model, "--set", "start=x", "--set", "start=q")
    assert first.startswith("q")
    assert "--set start was given twice: q holds, x does not count." in told


def test_the_summary_and_the_history_have_them(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.toml").write_text('[parameters.ban]\nwords = ["e", "x\\ny"]\nstart = "q"\n')
    _, out, _ = run(capsys, "--model", model, "--json", "-q", "--set", "start= ")
    summary = json.loads(out.splitlines()[-1])
    assert summary["parameters"]["words"] == {"value": ["e", "x\ny"], "source": "config.toml:2"}
    assert summary["parameters"]["start"] == {
        "value": " ",
        "source": "--set",
        "lost": [{"key": "parameters.ban.start", "value": "q", "source": "config.toml:3"}],
    }
    assert main(["history", "show", "last"]) == 0
    shown = capsys.readouterr().out
    assert r"'e', 'x\ny' (config.toml:2)" in shown
    assert main(["history", "export", "last", "--format", "json", "--output", str(folder / "run.json")]) == 0
    stored = load((folder / "run.json").read_bytes())
    assert stored.request.values == {"words": ("e", "x\ny"), "start": " "}
    assert stored.started is not None
    assert stored.started.values["words"].value == ("e", "x\ny")
    run(capsys, "--model", model, "-q")
    capsys.readouterr()
    assert main(["history", "diff", "last", "1"]) == 1  # they differ
    assert "q  →  ' '" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("words=e5", "words has 'e5', but must have no digit."),
        ("weight=e", "weight is 'e', but must be a number from 0 to 2."),
        ("start=" + "x" * 10_001, "with 10,001 characters, but must be a text of at most 10,000 characters."),
        ("word=e", 'unknown parameter; did you mean "words"?'),
        ("max_length=6", "this is a setting of its own; give --max-length."),
    ],
)
def test_a_mistake_ends_with_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str, sentence: str
) -> None:
    status, out, told = run(capsys, "--set", flag)
    assert (status, out) == (2, "")
    assert sentence in told


def test_config_and_help_show_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.toml").write_text('[parameters.ban]\nwords = ["e", "\\u001b[m"]\n')
    assert main(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert 'words = ["e", "\\u001b[m"]' in shown
    assert 'start = ""' in shown
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Texts that no token may hold. a list of texts of at most 10,000 characters; default none" in text
