"""Every field of OpenAI's two requests: honoured, ignored by name, or refused with a sentence."""

from __future__ import annotations

from typing import Any, get_type_hints

import openai
import pytest
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionContentPartTextParam
from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsStreaming as CompletionParams
from pydantic import BaseModel

from edge_tui.serve.schemas import (
    Chat,
    Completion,
    Hint,
    StreamOptions,
    StrictModel,
    TextPart,
    Turn,
    Unsupported,
)
from tests.serve.serving import Running

PROMPT = "def main("
CHAT = "/v1/chat/completions"
BODIES: dict[str, tuple[type[StrictModel], dict[str, Any]]] = {
    CHAT: (Chat, {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2}),
    "/v1/completions": (Completion, {"prompt": PROMPT, "max_tokens": 2}),
}
HONOURED = {
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "n",
    "presence_penalty", "frequency_penalty", "seed", "stream", "stream_options", "logprobs", "top_logprobs",
    "echo", "best_of", "logit_bias",
}  # fmt: skip
"""Fields that other tests turn; `best_of` may be `n`."""


def _fields(schema: type[StrictModel]) -> dict[str, str]:
    """What each field of a schema is."""
    hint = Hint.__metadata__[0]
    return {
        name: "hint"
        if hint in field.metadata
        else "unsupported"
        if any(isinstance(each, Unsupported) for each in field.metadata)
        else "honoured"
        for name, field in schema.model_fields.items()
    }


def _named(path: str, kind: str) -> list[str]:
    return [name for name, found in _fields(BODIES[path][0]).items() if found == kind]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (ChatParams, Chat),
        (CompletionParams, Completion),
        (ChatCompletionAssistantMessageParam, Turn),
        (openai.types.chat.ChatCompletionMessage, Turn),
        (ChatCompletionContentPartTextParam, TextPart),
        (ChatCompletionStreamOptionsParam, StreamOptions),
    ],
)
def test_every_field_of_the_official_client_is_known(theirs: type, ours: type[StrictModel]) -> None:
    names = set(theirs.model_fields if issubclass(theirs, BaseModel) else get_type_hints(theirs))
    assert len(names) >= 2
    assert names - ours.model_fields.keys() == set()
    if ours in (Chat, Completion):
        assert {name for name in names if _fields(ours)[name] == "honoured"} <= HONOURED


@pytest.mark.parametrize("path", BODIES)
def test_hints_change_nothing(server: Running, path: str) -> None:
    body = BODIES[path][1]
    plain = server.post(path, body)
    request = server.engine.requests[-1]
    for value in ("some", {"a": [1]}):
        hinted = server.post(path, {**body, **dict.fromkeys(_named(path, "hint"), value)})
        assert hinted.status_code == 200, hinted.text
        assert hinted.json()["choices"] == plain.json()["choices"]
        assert server.engine.requests[-1] == request


@pytest.mark.parametrize("path", BODIES)
def test_what_would_change_the_answer_is_refused_with_a_sentence(server: Running, path: str) -> None:
    body = BODIES[path][1]
    names = _named(path, "unsupported")
    for name in names:
        refused = server.post(path, {**body, name: {"a": 1}})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (422, name, "unsupported")
        assert error["message"].startswith(f"{name}: ")
        assert error["message"].endswith(".")
        assert "leave it out" in error["message"]
    for empty in ([], {}, "", False):
        answer = server.post(path, {**body, **dict.fromkeys(names, empty)})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
def test_null_is_left_out_in_every_field(server: Running, path: str) -> None:
    schema, body = BODIES[path]
    plain = server.post(path, body)
    request = server.engine.requests[-1]
    every = {**dict.fromkeys(schema.model_fields), **body}
    answer = server.post(path, every)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == plain.json()["choices"]
    assert server.engine.requests[-1] == request
    for name in schema.model_fields.keys() - body.keys():
        assert schema.model_validate({**body, name: None}) == schema.model_validate(body), name
    nested = {**body, "params": {"repetition_penalty": None}, "stop": None}
    assert server.post(path, nested).status_code == 200
    options = {"include_usage": None, "include_obfuscation": None}
    told = server.stream(path, {**every, "stream": True, "stream_options": options})
    assert told[-1][1] == "[DONE]"
    server.post(path, {**body, "max_tokens": None})
    assert server.engine.requests[-1].max_length == (32 if path == CHAT else 16)
    for name in ("prompt", "messages"):
        if name in body:
            missing = server.post(path, {**body, name: None})
            assert (missing.status_code, missing.json()["error"]["param"]) == (422, name)


@pytest.mark.parametrize("stream", [False, True])
def test_its_own_answers_are_taken_back_as_turns(server: Running, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked: Any = {"role": "user", "content": PROMPT}
    first = client.chat.completions.create(model="demo/expert", messages=[asked], max_tokens=3)
    said = first.choices[0].message
    whole = said.model_dump()
    assert whole["refusal"] is whole["tool_calls"] is None
    turns: list[Any] = [
        said,
        whole,
        {**whole, "content": None, "reasoning_content": "thinks"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": [], "content": [{"type": "text", "text": "x"}]},
    ]
    for turn in turns:
        client.chat.completions.create(
            model="demo/expert", messages=[asked, turn, asked], max_tokens=2, stream=stream
        )
    for wrong, param in (
        ({"role": "user", "content": None}, "messages.1"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, "messages.1.tool_calls"),
        ({"role": "assistant", "refusal": "No."}, "messages.1.refusal"),
    ):
        refused = server.post(CHAT, {"messages": [asked, wrong], "max_tokens": 2})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (422, param), error


SAMPLED = {"temperature": 1.5, "max_tokens": 6}


@pytest.mark.parametrize("path", BODIES)
def test_a_seed_below_zero_draws_and_a_nucleus_of_nothing_is_greedy(server: Running, path: str) -> None:
    body = {**BODIES[path][1], **SAMPLED}

    def run(**more: Any) -> tuple[int, Any]:
        said = server.post(path, {**body, **more}).json()
        return said["edge_tui"]["runs"][0]["seed"], said["choices"]

    drawn = {run(seed=-1)[0] for _ in range(2)}
    assert len(drawn) == 2
    assert min(drawn) >= 0
    greedy = server.post(path, {**body, "temperature": 0}).json()["choices"]
    assert run(top_p=0, seed=1)[1] == run(top_p=0, seed=2)[1] == greedy


def test_so_they_are_over_our_own_route(server: Running) -> None:
    body = {"prompt": PROMPT, "max_length": 6, "details": True, "strategy": "top_p"}
    cold = [server.post("/infer", {**body, "params": {"top_p": 0}, "seed": seed}).json() for seed in (1, 2)]
    greedy = server.post("/infer", {**body, "strategy": "greedy"}).json()
    assert cold[0]["output"] == cold[1]["output"] == greedy["output"]
    drawn = {server.post("/infer", {**body, "seed": -1}).json()["seed"] for _ in range(2)}
    assert len(drawn) == 2
