"""`/explain`, and `/infer` with `explain`: the same numbers everywhere, and each refusal one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge_tui.engine.events import Event, Failed
from edge_tui.serve.explain import MOST
from edge_tui.serve.schemas import MAX_CANDIDATES
from tests.engine.explanations import assert_alike
from tests.serve.serving import Running, serving

ROOT = Path(__file__).resolve().parents[2]
BODY = {
    "prompt": "def main(",
    "max_length": 4,
    "strategy": "top_p",
    "params": {"top_p": 0.9, "temperature": 1.2},
    "seed": 11,
}


def tokens(told: list[tuple[str, Any]], row: int = 0) -> list[dict[str, Any]]:
    return [data for kind, data in told if kind == "token" and data["row"] == row]


def test_each_token_is_explained_and_a_question_gets_the_same_answer(server: Running) -> None:
    answer = server.post("/infer", {**BODY, "explain": True}).json()
    told = server.stream("/infer/stream", {**BODY, "explain": True})
    assert [kind for kind, _ in told] == ["start", *["token"] * 4, *["explanation"] * 4, "end"]
    streamed = [data for kind, data in told if kind == "explanation"]
    assert_alike(streamed, answer["explanations"])
    ids = [token["id"] for token in tokens(told)]
    for index, (token, why) in enumerate(zip(tokens(told), streamed, strict=True)):
        assert (why["index"], why["row"], why["token"], why["winner"]) == (index, 0, token["id"], token["id"])
        assert why["candidates"][0]["raw_logp"] == pytest.approx(token["logprob"], abs=1e-4)
        asked = server.post("/explain", {**BODY, "prefix": ids[:index], "token": token["id"]}).json()
        assert_alike({**asked, "index": index, "row": 0}, why)


def test_a_sample_is_explained_under_its_own_seed(server: Running) -> None:
    body = {**BODY, "n": 3, "explain": "last"}
    told = server.stream("/infer/stream", body)
    explained = [data for kind, data in told if kind == "explanation"]
    assert [(each["row"], each["index"]) for each in explained] == [(0, 3), (1, 3), (2, 3)]
    for row, each in enumerate(explained):
        assert each["winner"] == each["token"] == tokens(told, row)[-1]["id"]


def test_named_tokens_are_explained_and_those_there_are_not_say_so(server: Running) -> None:
    explained = server.post("/infer", {**BODY, "explain": [3, 9, 1, 3]}).json()["explanations"]
    assert [each["index"] for each in explained] == [1, 3, 9]
    assert explained[-1]["error"] == {
        "message": "Token 9 was asked for, but the transcript has 4.",
        "type": "invalid_request_error",
        "param": "explain",
        "code": "no_such_token",
    }


def test_an_answer_goes_on_from_a_prefix_and_its_own_tokens_are_explained(server: Running) -> None:
    whole = server.post("/infer", {**BODY, "explain": True}).json()["explanations"]
    prefix = [each["token"] for each in whole[:2]]
    rest = server.post("/infer", {**BODY, "max_length": 2, "prefix": prefix, "explain": True}).json()
    assert [each["index"] for each in rest["explanations"]] == [2, 3]
    assert [each["token"] for each in rest["explanations"]] == [each["token"] for each in whole[2:]]


def test_candidates_and_others_are_told_of(server: Running) -> None:
    body = {**BODY, "token": 5, "candidates": [7, 9], "others": ["greedy"]}
    why = server.post("/explain", body).json()
    assert {5, 7, 9} <= {each["id"] for each in why["candidates"]}
    assert [each["strategy"] for each in why["others"]] == ["greedy"]


def test_nothing_is_explained_unless_it_is_asked_for(server: Running) -> None:
    for explain in (False, None):
        assert list(server.post("/infer", {**BODY, "explain": explain}).json()) == ["output"]


@pytest.mark.parametrize(
    ("path", "more", "param", "says"),
    [
        (
            "/infer",
            {"explain": True, "max_length": 600},
            "explain",
            "up to 600 tokens, but one request may ask",
        ),
        ("/infer", {"explain": True, "max_length": 300, "n": 2}, "explain", "up to 600 tokens"),
        ("/infer", {"explain": "first"}, "explain", ""),
        ("/infer", {"explain": [-1]}, "explain.0", "greater than or equal to 0"),
        ("/infer/stream", {"explain": True, "format": "columns"}, "explain", "ask /explain"),
        ("/explain", {}, "token", "Field required"),
        ("/explain", {"token": 5, "seed": None}, "seed", "send the one that the run used"),
        ("/explain", {"token": 5, "n": 2}, "n", ""),
        ("/explain", {"token": 5, "explain": True}, "explain", "has no field 'explain'"),
        ("/explain", {"token": 5, "strategy": "nothing"}, "strategy", "There is no strategy 'nothing'"),
        ("/explain", {"token": 5, "candidates": [1] * 1001}, "candidates", "at most 1000"),
        ("/explain", {"token": 10**8}, None, "ids are whole numbers from 0 to"),
        ("/explain", {"token": 5, "prefix": [10**8]}, None, "ids are whole numbers from 0 to"),
        ("/explain", {"token": 5, "others": ["nothing"]}, "others", "There is no strategy 'nothing'"),
        ("/explain", {"token": 5, "model": "gpt-2"}, None, "gpt-2 wrote this"),
        ("/explain", {"token": 5, "prompt": "a " * 3000}, None, "shorten the prompt"),
        ("/explain", {"token": 5, "prompt": ""}, None, ""),
        ("/tokens", {"text": "main"}, "prompt", "has no field 'prompt'"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(
    server: Running, path: str, more: dict[str, Any], param: str | None, says: str
) -> None:
    answer = server.post(path, {**BODY, **more})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, param)
    assert says in error["message"]
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]


def test_a_question_needs_the_key_and_waits_in_the_queue() -> None:
    with serving(key="secret", queue=0) as running:
        body = {**BODY, "token": 5}
        assert running.post("/explain", body).status_code == 200
        assert running.post("/tokens", {"text": "main"}).json() == {"ids": [752], "texts": ["main"]}
        running.headers.clear()
        assert running.post("/explain", body).status_code == 401
        assert running.post("/tokens", {"text": "main"}).status_code == 401


def test_the_documented_example_is_what_the_server_says(server: Running) -> None:
    text = (ROOT / "docs" / "why.md").read_text(encoding="utf-8")
    asked, documented = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    answer = server.post("/explain", asked).json()
    for name in ("stages", "candidates"):  # some of them
        key = "id" if name == "candidates" else "name"
        listed = [each[key] for each in documented[name]]
        answer[name] = [each for each in answer[name] if each[key] in listed]
    assert_alike({name: answer[name] for name in documented}, documented)


def test_the_documented_limits_hold() -> None:
    text = (ROOT / "docs" / "why.md").read_text(encoding="utf-8")
    assert f"one request may\nask of {MOST} tokens" in text
    assert f"up to {MAX_CANDIDATES:,} ids" in text


def test_a_question_that_takes_too_long_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(seconds=1) as running, monkeypatch.context() as patch:
        poll, late = running.engine.poll, list[Event]()
        patch.setattr(running.engine, "explain", lambda question: 10**6)
        patch.setattr(running.engine, "cancel", lambda run: late.append(Failed("Taken back.", run)))
        patch.setattr(running.engine, "poll", lambda: [*poll(), *(late.pop() for _ in list(late))])
        answer = running.post("/explain", {**BODY, "token": 5})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "time")
        assert answer.json()["error"]["message"] == "The explanation took longer than this server lets it."
        patch.undo()
        assert running.post("/explain", {**BODY, "token": 5}).status_code == 200
