"""A history whose file is damaged: what can be read of it goes on in a new one."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from edge_tui.cli.history import run as history
from edge_tui.engine.port import Request
from edge_tui.history.recorder import Recorder
from edge_tui.history.salvage import open_or_rebuild, open_store
from edge_tui.history.schema import HistoryError, default_path
from edge_tui.history.store import Store
from tests.history.runs import ScriptedEngine, keep
from tests.waiting import until

RUNS = 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A history of a megabyte."""
    path = tmp_path_factory.mktemp("history") / "history.db"
    store = Store(path)
    rng = random.Random(1)
    for number in range(RUNS):
        words = [f" {rng.getrandbits(64):x}" for _ in range(60)]
        keep(store, f"the river {number} " + "".join(words), words)
    store.add_token_strings("tiny", {id: f"piece {id}" for id in range(3000)})
    store.close()
    return path.read_bytes()


def damage(path: Path, sound: bytes, first: int, pages: int, seed: int = 0) -> None:
    """Writes noise over pages of a history, counted from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    broken = bytearray(sound)
    broken[first * 4096 : (first + pages) * 4096] = random.Random(seed).randbytes(pages * 4096)
    path.write_bytes(broken[: len(sound)])


def pages(sound: bytes) -> int:
    return len(sound) // 4096


def test_a_file_larger_than_the_disk_is_only_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with path.open("wb") as file:
        file.truncate(2 * shutil.disk_usage(tmp_path).total)
    store = open_store(path)
    assert "no room" in store.problem
    keep(store)
    assert store.is_persistent


def test_a_header_that_is_lost_costs_no_run(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "history.db"
    damage(path, sound, 0, 1)
    store = open_or_rebuild(path)
    assert "damaged" in store.problem
    assert len(store.runs()) == RUNS


def test_the_runs_that_can_be_read_go_on_in_a_new_file(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "history.db"
    damage(path, sound, pages(sound) * 3 // 5, 3)
    store = open_or_rebuild(path)
    (aside,) = tmp_path.glob("history-damaged-*.db")
    assert aside.name in store.problem
    entries = store.runs()
    assert RUNS * 0.8 <= len(entries) <= RUNS
    assert f"{len(entries)} runs are in a new one" in store.problem
    for entry in entries:
        stored = store.load(entry.id)
        assert stored.prompt.startswith("the river ")
    assert len({entry.uid for entry in entries}) == len(entries)
    assert len(store.search("river")) == len(entries)
    keep(store)
    store.close()
    again = open_or_rebuild(path)
    assert again.problem == ""
    assert len(again.runs()) == len(entries) + 1
    assert sorted(each.name for each in tmp_path.glob("*rebuilt*")) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.proof) for seed in (1, 2))])
def test_noise_anywhere_ends_nobody(tmp_path: Path, sound: bytes, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "history.db"
    broken = bytearray(sound)
    for _ in range(12):
        at = rng.randrange(4096, len(sound) - 512)
        broken[at : at + 512] = rng.randbytes(512)
    path.write_bytes(broken)
    store = open_store(path)
    assert store.is_persistent
    for entry in store.runs():
        with suppress(HistoryError):  # noise in the tokens themselves is a sentence when they are read
            store.load(entry.id)
    keep(store)


def test_a_file_that_is_cut_off_keeps_its_beginning(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(sound[: len(sound) * 3 // 4])
    store = open_store(path)
    assert "damaged" in store.problem
    assert len(store.runs()) >= RUNS // 2


@pytest.mark.parametrize("is_open_elsewhere", [False, True])
def test_the_newest_runs_are_saved_too(tmp_path: Path, sound: bytes, is_open_elsewhere: bool) -> None:
    """They lie in a file beside, which belongs to the damaged one."""
    path = tmp_path / "history.db"
    path.write_bytes(sound)
    writer = Store(path)
    newest = keep(writer, "the newest one")
    beside = path.with_name("history.db-wal").read_bytes()
    writer.close()
    damage(path, sound, pages(sound) // 2, 2)
    path.with_name("history.db-wal").write_bytes(beside)
    other = sqlite3.connect(path)
    if is_open_elsewhere:  # then SQLite leaves them there when we close the file
        other.execute("SELECT count(*) FROM runs").fetchone()
    store = open_or_rebuild(path)
    assert "damaged" in store.problem
    assert store.find(newest.uid) is not None
    other.close()


def test_the_command_says_so_and_goes_on(sound: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    damage(default_path(), sound, pages(sound) // 2, 3)
    assert history({"what": "list", "most": 0, "json": False}) == 0
    said = capsys.readouterr()
    assert "edge-tui: The history was damaged: " in said.err
    assert len(said.out.splitlines()) >= RUNS * 0.8


def test_damage_that_is_met_while_runs_are_written_loses_no_new_one(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(sound)
    engine = ScriptedEngine()
    recorder = Recorder(lambda: Store(path))  # as if the search at the start had found nothing
    recorded = recorder.record(engine)
    assert recorder.reader() is not None
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(path, sound, 3, pages(sound) - 3)
    for number in range(3):
        run = recorded.submit(Request(f"after the damage {number}", strategy="top_p"))
        engine.tell(run)
        until(lambda: "damaged" in recorder.problem)
    assert recorder.close(60.0)
    assert "damaged" in recorder.problem
    kept = open_or_rebuild(path)
    assert kept.problem == ""
    assert "after the damage 2" in [entry.prompt for entry in kept.runs()]
