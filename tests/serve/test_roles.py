"""Models that are loaded and unloaded over HTTP: every order, shared weights, and the names in answers."""

from __future__ import annotations

import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from edge_tui.engine.checkpoints.locate import DEMO as PAIR
from tests.serve.serving import DEMO, Running, serving
from tests.waiting import until

PROMPT = "def main("
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2}
ROLES = ("model", "expert", "amateur", "draft")
EXPERT, AMATEUR = "demo/expert", "demo/amateur"


@pytest.fixture(scope="module")
def managed() -> Any:
    with serving(manage=True) as server:
        yield server


def _load(server: Running, role: str, name: str) -> httpx.Response:
    return server.post("/models/load", {"role": role, "name": name})


def _reset(server: Running) -> None:
    for role, name in zip(ROLES, (EXPERT, EXPERT, AMATEUR, AMATEUR), strict=True):
        assert _load(server, role, name).status_code == 200


def _models(server: Running) -> Any:
    with server.client() as client:
        return client.get("/models").json()


def test_a_draft_before_its_amateur_is_no_trouble(managed: Running) -> None:
    for first, second in (("draft", "amateur"), ("amateur", "draft"), ("expert", "model")):
        managed.post("/models/unload", {"role": "amateur"})
        for role in (first, second, first):
            answer = managed.post("/models/load", {"role": role})
            assert (answer.status_code, answer.json()["role"]) == (200, role)
            assert answer.json()["loaded"]["role"] == role


@pytest.mark.parametrize(
    ("seed", "steps"), [(3, 6), *(pytest.param(seed, 48, marks=pytest.mark.proof) for seed in range(3))]
)
def test_any_order_of_loads_and_unloads_leaves_what_was_asked_for(
    managed: Running, seed: int, steps: int
) -> None:
    luck = random.Random(seed)
    for step in range(steps):
        role = luck.choice(ROLES)
        if luck.random() < 0.3:
            said = managed.post("/models/unload", {"role": role})
            assert said.status_code == 200
            shared = _models(managed)
            assert role in said.json()["roles"]
            assert not set(said.json()["roles"]) & shared["loaded"].keys()
        else:
            name = luck.choice((EXPERT, AMATEUR))
            said = _load(managed, role, name)
            assert said.status_code == 200, said.text
            assert said.json()["loaded"]["name"] == name
            shown = _models(managed)
            assert shown["roles"][role] == name
            assert shown["loaded"][role]["name"] == name
        if step % 6 == 5:
            for strategy in ("greedy", "contrastive", "speculative"):
                body = {"prompt": PROMPT, "max_length": 2, "strategy": strategy, "details": True}
                answer = managed.post("/infer", body)
                assert answer.status_code == 200, answer.text
                role = "expert" if strategy == "contrastive" else "model"
                assert answer.json()["model"] == _models(managed)["roles"][role]
    _reset(managed)


def test_loads_at_once_each_get_their_answer(managed: Running) -> None:
    answers: list[httpx.Response] = []
    asked = [(role, name) for role in ROLES for name in (EXPERT, AMATEUR)]
    threads = [
        threading.Thread(target=lambda pair=pair: answers.append(_load(managed, *pair))) for pair in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * len(asked)
    _reset(managed)


def test_an_answer_names_the_model_that_wrote_it(managed: Running) -> None:
    assert _load(managed, "model", AMATEUR).status_code == 200
    for path, body in (
        ("/v1/completions", {"prompt": PROMPT, "max_tokens": 2}),
        ("/v1/chat/completions", CHAT),
    ):
        for more in ({}, {"model": AMATEUR}):
            assert managed.post(path, {**body, **more}).json()["model"] == AMATEUR
            chunks = managed.stream(path, {**body, **more, "stream": True})
            assert {data["model"] for _, data in chunks[:-1]} == {AMATEUR}
        gone = managed.post(path, {**body, "model": EXPERT})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        assert AMATEUR in gone.json()["error"]["message"]
    with managed.client() as client:
        assert client.get(f"/v1/models/{AMATEUR}").json()["id"] == AMATEUR
        assert client.get(f"/v1/models/{EXPERT}").status_code == 404
    _load(managed, "model", EXPERT)
    contrast = {"prompt": PROMPT, "max_tokens": 2, "strategy": "contrastive"}
    _load(managed, "expert", AMATEUR)
    assert managed.post("/v1/completions", contrast).json()["model"] == AMATEUR, "the expert wrote it"
    _reset(managed)


def test_a_model_that_is_changed_while_requests_wait(slow: str) -> None:
    answers: dict[str, httpx.Response] = {}
    body = {"prompt": PROMPT, "strategy": slow}

    def ask(key: str, **more: Any) -> threading.Thread:
        def run() -> None:
            answers[key] = server.post("/v1/completions", {**body, **more})

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with serving(manage=True) as server:
        threads = [ask("running", max_tokens=1000)]
        until(lambda: server.app.dispatcher.running)
        threads += [ask("named", max_tokens=2, model=EXPERT), ask("any", max_tokens=2)]
        until(lambda: server.app.dispatcher.waiting == 2)
        assert _load(server, "model", AMATEUR).status_code == 200
        for thread in threads:
            thread.join(20)
        assert answers["running"].json()["model"] == EXPERT
        assert answers["running"].json()["choices"][0]["finish_reason"] == "abort"
        assert answers["any"].json()["model"] == AMATEUR
        gone = answers["named"]
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


def test_a_load_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(PAIR / "expert", broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    settings = replace(DEMO, models=replace(DEMO.models, folders=(str(tmp_path),)))
    with serving(settings, manage=True) as server:
        name = next(each["name"] for each in _models(server)["available"] if "broken" in each["name"])
        for role in ("model", "amateur"):
            failed = _load(server, role, name)
            assert failed.status_code in (422, 500), failed.text
            assert "broken" in failed.json()["error"]["message"]
            until(lambda: server.app.dispatcher.ready)
            assert _models(server)["roles"] == dict(
                zip(ROLES, (EXPERT, EXPERT, AMATEUR, AMATEUR), strict=True)
            )
        for strategy in ("greedy", "contrastive", "speculative"):
            body = {"prompt": PROMPT, "max_length": 2, "strategy": strategy}
            assert server.post("/infer", body).status_code == 200


def test_mistakes_of_clients_leave_no_crash_log(
    managed: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    mistakes: list[tuple[str, Any]] = [
        ("/infer", {"prompt": "a " * 5000}),
        ("/infer", {"prompt": [4096]}),
        ("/infer", {"prompt": "a", "prefix": [5000]}),
        ("/infer", {"prompt": [1], "prefix": [1] * 5000}),
        ("/infer", {"prompt": "\u200b", "params": {"x": 1}}),
        ("/v1/completions", {"prompt": [1] * 5000, "echo": True, "logprobs": 1, "max_tokens": 0}),
        ("/v1/chat/completions", {**CHAT, "model": "gone"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}),
        ("/models/load", {"name": "none"}),
        ("/models/load", {"role": "none"}),
        ("/nowhere", {}),
    ]
    for path, body in mistakes:
        for more in ({}, {"stream": True}) if path.startswith("/v1/c") else ({},):
            answer = managed.post(path, {**body, **more})
            assert 400 <= answer.status_code < 500, (path, answer.text)
    assert not list(tmp_path.rglob("*.log"))
