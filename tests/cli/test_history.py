"""`edge-tui history` as a shell meets it, and that `run` keeps what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_tui.cli import main
from edge_tui.history import process_identity
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from tests.history.runs import WORDS, keep


def history(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = main.main(["history", *args])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_list_search_show_diff(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(default_path())
    first = keep(store, "Why?\x1b[31m", seed=1)
    second = keep(store, "How?", [*WORDS[:4], "red "], seed=2)
    status, out, _ = history(capsys, "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [str(second.id), str(first.id)]
    assert "\x1b" not in out
    assert len(history(capsys, "search", "molecules")[1].splitlines()) == 1
    assert history(capsys) == history(capsys, "list")
    assert json.loads(history(capsys, "list", "--json", "-n", "1")[1])["uid"] == second.uid
    shown = history(capsys, "show", first.uid[:9])[1]
    assert "seed               1" in shown
    assert "".join(WORDS) in shown
    status, out, _ = history(capsys, "diff", str(first.id), "last")
    assert status == 1
    assert "seed               1  →  2" in out
    assert "The numbers differ before the draw: the prompts are not the same." in out
    assert history(capsys, "diff", "last", "last")[0] == 0


def test_export_import_delete(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    entry = keep(Store(default_path()))
    file = tmp_path / "run.json"
    assert history(capsys, "export", "last", "-o", str(file))[0] == 0
    status, _, err = history(capsys, "import", str(file))
    assert status == 1
    assert "already" in err
    assert history(capsys, "delete", str(entry.id))[0] == 1  # nobody is there to be asked
    assert history(capsys, "delete", "-y", str(entry.id))[0] == 0
    assert history(capsys, "list")[2] == "No run has been kept yet.\n"
    assert history(capsys, "import", str(file))[0] == 0
    assert Store(default_path()).runs()[0].uid == entry.uid
    for kind in ("html", "svg", "md"):
        assert history(capsys, "export", "last", "--format", kind)[0] == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "7"), "no run 7"),
        (("show", "zz"), "'zz' is no run"),
        (("show", "last"), "No run has been kept yet"),
        (("import", "/nowhere.json"), "/nowhere.json cannot be used"),
    ],
)
def test_what_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], says: str
) -> None:
    status, out, err = history(capsys, *args)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert says in err


def test_a_file_that_is_no_run_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("[1]")
    status, _, err = history(capsys, "import", str(file))
    assert status == 1
    assert "x.json: It is no run" in err


def test_a_run_is_kept_unless_it_is_private(capsys: pytest.CaptureFixture[str]) -> None:
    order = ["run", "def f(x):", "--max-length", "5", "--strategy", "greedy", "-q"]
    assert main.main([*order, "--no-history"]) == 0
    assert not default_path().exists()
    assert main.main(order) == 0
    text = capsys.readouterr().out
    store = Store(default_path())
    (entry,) = store.runs()
    assert entry.state == "finished"
    assert entry.tokens == 5
    assert len(text) == 2 * len(text[: len(text) // 2])
    assert default_path().stat().st_mode & 0o777 == 0o600


def test_secrets_of_the_environment_never_get_into_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    canary = "hf_" + "c4n4ry" * 5
    monkeypatch.setenv("HF_TOKEN", canary)
    assert main.main(["run", "def f(x):", "--max-length", "4", "-q"]) == 0
    assert history(capsys, "export", "last", "-o", str(tmp_path / "x.json"))[0] == 0
    written = b"".join(file.read_bytes() for file in default_path().parent.iterdir())
    assert canary.encode() not in written + (tmp_path / "x.json").read_bytes()


def test_what_a_killed_process_left_is_listed_as_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(default_path())
    entry = keep(store)
    store.execute(
        "UPDATE runs SET state = 'running', owner = ?", (f"{process_identity.host()}/999999999/1.0",)
    )
    assert "interrupted" in history(capsys, "list")[1]
    assert store.take_offer() == store.entry(entry.id)
