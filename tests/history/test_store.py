"""The history's file: what is found in it again, who may read it, what happens when it is broken."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_tui.decoders.base import Column
from edge_tui.engine.port import Message, Request
from edge_tui.history import process_identity, schema
from edge_tui.history.restore import recover, transcript_of
from edge_tui.history.runs import Entry
from edge_tui.history.salvage import open_store
from edge_tui.history.schema import HistoryError
from edge_tui.history.store import Store
from tests.history.runs import WORDS, batch, keep, same, started


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


def test_a_run_comes_back_whole(path: Path) -> None:
    store = Store(path)
    entry = keep(store, rows=1, columns=("score",))
    stored = Store(path).load(entry.id)
    assert stored.entry == entry
    assert stored.entry.model == "some/model"
    assert stored.started == started(columns=("score",))
    assert stored.finished is not None
    assert stored.finished.seconds == 1.25
    assert same(stored.batches[0], batch(WORDS, columns=1))
    transcript = transcript_of(stored)
    assert transcript.text == "".join(WORDS)
    assert transcript.token(3).top[0].logp == pytest.approx(float(batch(WORDS, columns=1).top_logp[3, 0]))
    assert stored.versions == {"edge-tui": "0"}
    assert stored.models["model"].architecture == "LlamaForCausalLM"


def test_columns_of_an_older_version_have_the_roles_of_their_names(path: Path) -> None:
    store = Store(path)
    search = keep(store, texts=WORDS[:4], rows=2, columns=("score", "finished", "finished_parent", "gap"))
    single = keep(store, columns=("score", "rejected"))
    newer = keep(store, columns=("x",), column_details=(Column("x", "Its help.", role="unheard of"),))
    store.execute(
        "UPDATE details SET started = json_remove(started, '$.column_details') WHERE run != ?", (newer.id,)
    )

    def roles(entry: Entry) -> list[str]:
        found = Store(path).load(entry.id).started
        assert found is not None
        return [column.role for column in found.column_details]

    assert roles(search) == ["sum", "score", "parent", ""]
    assert roles(single) == ["", "token"]
    assert roles(newer) == ["unheard of"]


def test_turns_and_parameters_come_back_as_they_were(path: Path) -> None:
    store = Store(path)
    request = Request(
        (Message("system", "Be brief."), Message("user", "a\ud800\0"), Message("assistant", "b")),
        values={"temperature": 0.7, "order": "llama.cpp"},
        sources={"temperature": "user"},
        seed=2**53,
        stop=("\n\n",),
        prefix=(1, 2, 3),
    )
    entry = keep(store, request=request)
    assert store.load(entry.id).request == request
    assert entry.prompt == "a?␀"


def test_a_turn_knows_its_conversation_and_the_run_before_it(path: Path) -> None:
    store = Store(path)
    first, second = keep(store), keep(store)
    store.set_turn(second.id, "talk", 3, first.uid)
    entry = Store(path).entry(second.id)
    assert (entry.conversation, entry.turn, entry.parent) == ("talk", 3, first.uid)


def test_only_its_owner_may_read_it(path: Path) -> None:
    os.umask(0)
    keep(Store(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for side in path.parent.iterdir():
        assert side.stat().st_mode & 0o077 == 0, side


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 3),
        ("sky", 1),
        ("SCATTER", 1),
        ("catte sky", 1),
        ("sky os.path", 0),
        ('"sky blue"', 1),
        ('"blue sky"', 0),
        ("天", 1),
        ("為什麼", 1),
        ("os.path", 1),
        ("a_b%", 1),
        ("a_b% x", 0),
        ("%", 1),
        ("some/model", 3),
        ("top_p", 3),
        ('") OR 1', 0),
        ("\0\ud800", 0),
    ],
)
def test_search(path: Path, query: str, found: int) -> None:
    store = Store(path)
    keep(store, "Why is the sky blue?")
    keep(store, "天空為什麼是藍色的", ["因為"])
    keep(store, "import os.path a_b%", ["join"])
    assert len(store.search(query)) == found


def test_prompts_are_listed_once_newest_first(path: Path) -> None:
    store = Store(path)
    for prompt in ("one", "two", "one", "three\nlines"):
        keep(store, prompt)
    assert store.prompts() == ["three\nlines", "one", "two"]
    assert store.prompts("ONE") == ["one"]
    assert store.prompts("scatter") == []


def test_deleting_leaves_nothing_behind(path: Path) -> None:
    store = Store(path)
    entry = keep(store, "a secret prompt", ["a secret answer"])
    keep(store)
    store.delete(entry.id)
    assert [other.prompt for other in store.runs()] == ["Why is the sky blue?"]
    assert not store.search("secret")
    with pytest.raises(HistoryError, match="no run"):
        store.load(entry.id)
    store.close()
    assert b"secret" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize("meanwhile", ["deleted", "joined"])
def test_a_run_is_read_as_it_was_at_one_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Its reader is in the middle of it when another connection deletes it, or joins its chunks."""
    store, other = Store(path), Store(path)
    run = keep(store).id
    store.append_chunk(run, 1, batch(WORDS[:4]))
    rows = store.rows

    def slowly(query: str, values: Any = ()) -> list[Any]:
        found = rows(query, values)
        if "FROM chunks" in query and "number = ?" not in query:
            if meanwhile == "joined":
                other.append_chunk(run, 0, batch(WORDS + WORDS[:4]), replacing=2)
            elif other.runs():
                other.delete(run)
        return found

    monkeypatch.setattr(store, "rows", slowly)
    stored = store.load(run)
    assert [len(each) for each in stored.batches] == [len(WORDS), 4]
    monkeypatch.undo()
    if meanwhile == "deleted":
        with pytest.raises(HistoryError, match="no run"):
            store.load(run)
    else:
        assert [len(each) for each in store.load(run).batches] == [len(WORDS) + 4]


def test_the_listing_is_newest_first(path: Path) -> None:
    store = Store(path)
    for age in (30, 10, 20):
        keep(store, f"{age}", created=time.time() - age)
    assert [entry.prompt for entry in store.runs()] == ["10", "20", "30"]


def test_a_run_is_found_by_the_beginning_of_its_name(path: Path) -> None:
    store = Store(path)
    entry = keep(store)
    assert store.find(entry.uid[:6]) == entry
    assert store.find("%") is None
    keep(store)
    assert store.find("") is None


def test_what_ids_mean_is_kept_by_model(path: Path) -> None:
    store = Store(path)
    store.add_token_strings("a", {1: " x", 2: ""})
    store.add_token_strings("a", {3: "\ud83d"})
    store.add_token_strings("b", {1: "y"})
    assert store.token_strings("a") == {1: " x", 2: "", 3: "?"}
    assert store.token_string_ids("b") == {1}


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    store = Store(path)
    entry = keep(store)
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012 - the middle of it
        store.delete(entry.id)
        _ = 1 // 0
    assert store.runs() == [entry]


def test_two_instances_write_at_once(path: Path) -> None:
    stores = [Store(path), Store(path)]

    def write(store: Store) -> None:
        for i in range(20):
            keep(store, f"prompt {i}")

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].runs()) == 40
    assert len(stores[0].search("prompt")) == 40


OTHER_PROCESS = """
import sys
from pathlib import Path
from edge_tui.engine.port import Request
from edge_tui.history.store import Store

store = Store(Path(sys.argv[1]))
for number in range(3):
    store.insert_run(f"{sys.argv[2]}{number}", 0.0, Request("there"))
store.close()
"""


def test_a_second_connection_keeps_the_locks_of_the_first(path: Path) -> None:
    store = Store(path)
    store.insert_run("first", 0.0, Request("here"))
    reader = Store(path)
    for process in range(3):
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(path), str(process)], check=True)
        assert path.with_name("history.db-wal").exists(), "a process that leaves takes it for its own"
        store.insert_run(f"here {process}", 0.0, Request("here"))
        assert len(reader.runs()) == 1 + 4 * (process + 1)
    assert not Store(path).is_damaged()


# Runs that were cut off.


def test_a_run_whose_process_is_gone_is_found_again_and_offered_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_identity, "own", lambda: f"{process_identity.host()}/999999999/1.00")
    store = Store(path)
    run = store.insert_run("ab", time.time(), Request("Go on"))
    store.set_started(run, started(), {}, {})
    store.append_chunk(run, 0, batch(WORDS))
    empty = store.insert_run("cd", time.time(), Request("never begun"))
    assert recover(store, time.time()) == [run]
    assert empty not in [entry.id for entry in store.runs()]
    assert store.search("molecules") == {run}
    offered = store.take_offer()
    assert offered is not None
    assert (offered.uid, offered.state, offered.tokens) == ("ab", "interrupted", len(WORDS))
    assert store.take_offer() is None
    assert transcript_of(store.load(run)).ids() == tuple(batch(WORDS).id.tolist())


def test_a_run_of_a_living_process_is_left_alone(path: Path) -> None:
    store = Store(path)
    run = store.insert_run("ab", time.time(), Request("Go on"))
    store.append_chunk(run, 0, batch(WORDS))
    assert recover(Store(path), time.time()) == []
    assert store.entry(run).state == "running"


def test_a_process_that_has_an_older_ones_number_is_another() -> None:
    now = time.time()
    began = process_identity.own().rpartition("/")[2]
    older = process_identity.own().replace(began, f"{float(began) - 60:.2f}")
    assert process_identity.is_alive(process_identity.own(), heartbeat=0.0, now=now)
    assert not process_identity.is_alive(older, heartbeat=now, now=now)


def test_on_another_machine_a_sign_of_life_decides() -> None:
    owner = "elsewhere/12/3.00"
    assert process_identity.is_alive(owner, heartbeat=1000.0, now=1010.0)
    assert not process_identity.is_alive(owner, heartbeat=1000.0, now=1000.0 + process_identity.TIMEOUT)
    assert not process_identity.is_alive("nonsense", 0.0, 1e9)


# Files that cannot be used.


def test_a_damaged_file_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, however long one looks at it" * 100)
    store = open_store(path)
    assert "damaged" in store.problem
    assert store.is_persistent
    keep(store)
    (aside,) = path.parent.glob("history-damaged-*.db")
    assert aside.read_bytes().startswith(b"this is no database")
    assert aside.name in store.problem


def test_a_locked_file_leaves_a_history_in_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = open_store(path)
    assert "locked" in store.problem
    assert not store.is_persistent
    assert store.load(keep(store).id).prompt == "Why is the sky blue?"


def test_a_folder_that_cannot_be_made_leaves_a_history_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(tmp_path / "file" / "history.db")
    assert "not kept" in store.problem
    assert not store.is_persistent


def test_a_newer_format_is_left_alone(path: Path) -> None:
    store = Store(path)
    store.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    store.close()
    before = path.read_bytes()
    later = open_store(path)
    assert "newer edge-tui" in later.problem
    assert not later.is_persistent
    assert path.read_bytes() == before


def test_an_older_format_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = keep(Store(path))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    addition = "ALTER TABLE runs ADD COLUMN star INTEGER NOT NULL DEFAULT 0;"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, addition))
    store = Store(path)
    assert store.runs() == [entry]
    assert store.rows("SELECT star FROM runs") == [(0,)]
    assert store.rows("PRAGMA user_version") == [(schema.VERSION,)]


def test_sqlite_that_is_too_old_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 26, 0))
    with pytest.raises(HistoryError, match=r"SQLite 3\.34"):
        open_store(path)


def test_damaged_tokens_are_one_sentence(path: Path) -> None:
    store = Store(path)
    entry = keep(store)
    store.execute("UPDATE chunks SET data = x'00'")
    with pytest.raises(HistoryError, match=entry.uid):
        store.load(entry.id)
