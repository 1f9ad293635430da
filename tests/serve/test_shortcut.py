"""The short way answers as the long way does, and what is asked wrongly takes the long one."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from fastapi.routing import APIRoute

from tests.serve.serving import Running

SHORT, LONG = "application/json", "application/json; charset=utf-8"
GREEDY = {"prompt": "def main(", "max_length": 6, "strategy": "greedy"}


def ask(server: Running, path: str, raw: bytes, kind: str) -> tuple[int, Any]:
    with server.client() as client:
        answer = client.post(path, content=raw, headers={"Content-Type": kind})
    streamed = "event-stream" in answer.headers["content-type"]
    return answer.status_code, answer.text if streamed else answer.json()


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(GREEDY).encode(),
        json.dumps({**GREEDY, "prompt": "日本 \ud800", "stop": "x"}).encode(),
        json.dumps({**GREEDY, "params": {"temperature": 0.5}}).encode(),
        json.dumps({**GREEDY, "max_length": "6", "n": 2.0}).encode(),
        json.dumps({**GREEDY, "max_length": 0}).encode(),
        json.dumps({**GREEDY, "strange": 1}).encode(),
        b'{"prompt": "a", "max_length": NaN}',
        b'{"prompt": "a"',
        b'{"prompt": "\xff"}',
        b"[1]",
        b"",
        b"[" * 100_000,
    ],
)
def test_both_ways_answer_alike(server: Running, raw: bytes) -> None:
    assert ask(server, "/infer", raw, SHORT) == ask(server, "/infer", raw, LONG)


def test_what_is_well_asked_passes_no_route(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError("nobody is to come here")

    monkeypatch.setattr(APIRoute, "handle", broken)
    raw = json.dumps(GREEDY).encode()
    chat = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}).encode()
    completion = json.dumps({"prompt": "a", "max_tokens": 2, "stream": True}).encode()
    assert ask(server, "/infer", raw, SHORT)[0] == 200
    assert "event: end" in ask(server, "/infer/stream", raw, SHORT)[1]
    assert ask(server, "/v1/chat/completions", chat, SHORT)[0] == 200
    assert "[DONE]" in ask(server, "/v1/completions", completion, SHORT)[1]
    assert ask(server, "/infer", raw, LONG)[0] == 500


def test_two_kinds_at_once_are_refused_on_both_ways(server: Running) -> None:
    with server.client() as client:
        kinds = [("Content-Type", "text/plain"), ("Content-Type", SHORT)]
        for both in (kinds, kinds[::-1]):
            answer = client.post("/infer", content=json.dumps(GREEDY).encode(), headers=both)
            assert answer.status_code == 400
            assert "content-type" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/completions", {"prompt": [-1]}, "prompt.0: Input should be greater than or equal to 0."),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a"}]}]},
            "messages.0.content.0.type: Input should be 'text'.",
        ),
        ("/infer", {"prompt": {}}, "prompt: Input should be a valid string."),
    ],
)
def test_of_several_kinds_the_one_that_was_meant_complains(
    server: Running, path: str, body: dict[str, Any], told: str
) -> None:
    status, said = ask(server, path, json.dumps(body).encode(), SHORT)
    assert (status, said["error"]["message"]) == (422, told)


def test_a_refusal_of_the_endpoint_is_told(server: Running) -> None:
    status, said = ask(server, "/infer", json.dumps({**GREEDY, "strategy": "none"}).encode(), SHORT)
    assert (status, said["error"]["code"]) == (422, "unknown_strategy")
