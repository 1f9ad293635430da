"""Bodies of all kinds get an answer or one sentence about what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.serving import Running

JSON = "application/json"
GREEDY = {"prompt": "def main(", "max_length": 6, "strategy": "greedy"}


def ask(server: Running, path: str, raw: bytes, kind: str = JSON) -> tuple[int, Any]:
    with server.client() as client:
        answer = client.post(path, content=raw, headers={"Content-Type": kind})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8"])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (json.dumps(GREEDY).encode(), 200),
        (json.dumps({**GREEDY, "prompt": "日本 \ud800", "stop": "x"}).encode(), 200),
        (json.dumps({**GREEDY, "params": {"temperature": 0.5}}).encode(), 422),
        (json.dumps({**GREEDY, "max_length": "6", "n": 2.0}).encode(), 200),
        (json.dumps({**GREEDY, "max_length": 0}).encode(), 422),
        (json.dumps({**GREEDY, "strange": 1}).encode(), 422),
        (b'{"prompt": "a", "max_length": NaN}', 422),
        (b'{"prompt": "a"', 400),
        (b'{"prompt": "\xff"}', 400),
        (b"[1]", 422),
        (b"", 422),
        (b"[" * 100_000, 400),
    ],
)
def test_a_body_is_answered_or_refused(server: Running, raw: bytes, status: int, kind: str) -> None:
    assert ask(server, "/infer", raw, kind)[0] == status


def test_two_media_types_at_once_are_refused(server: Running) -> None:
    with server.client() as client:
        kinds = [("Content-Type", "text/plain"), ("Content-Type", JSON)]
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
    status, said = ask(server, path, json.dumps(body).encode())
    assert (status, said["error"]["message"]) == (422, told)


def test_a_refusal_of_the_endpoint_is_told(server: Running) -> None:
    status, said = ask(server, "/infer", json.dumps({**GREEDY, "strategy": "none"}).encode())
    assert (status, said["error"]["code"]) == (422, "unknown_strategy")
