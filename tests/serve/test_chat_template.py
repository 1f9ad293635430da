"""Conversations on a checkpoint with a chat template: the server renders them as the engine does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2 as httpx
import openai
import pytest

from edge_tui.config.settings import Models
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.port import Message
from edge_tui.engine.text import chat_template, template_process
from edge_tui.engine.text.tokenizer import Tokenizer
from tests.engine.random_checkpoints import CHAT_TEMPLATE, make_checkpoint
from tests.engine.template_bombs import BOMBS
from tests.serve.serving import DEMO, Running, serving
from tests.waiting import until

TURNS = [("system", "be brief"), ("user", "the quick fox"), ("assistant", "jumps"), ("user", "over")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = make_checkpoint(tmp_path_factory.mktemp("models") / "chatty", chat_template=True, seed=3)
    template = "{% if messages[-1].content == 'bomb' %}" + BOMBS["equal"] + "{% endif %}" + CHAT_TEMPLATE
    template += "{% if wordy %}in many words{% endif %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with serving(replace(DEMO, models=Models(name=str(folder)))) as running:
        yield running


def test_a_conversation_is_the_rendered_prompt(server: Running) -> None:
    checkpoint = open_checkpoint(server.app.settings.models.name)
    encode = Tokenizer.open(checkpoint).encode
    rendered = chat_template.render(checkpoint, [Message(role, text) for role, text in TURNS])  # type: ignore[arg-type]
    assert rendered is not None
    ids = encode(rendered, special=False)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    name = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=name,
        messages=[{"role": role, "content": text} for role, text in TURNS],  # type: ignore[misc]
        max_tokens=8,
        temperature=0,
    )
    same = client.completions.create(model=name, prompt=ids, max_tokens=8, temperature=0)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.choices[0].message.content == same.choices[0].text
    turns = [{"role": role, "content": text} for role, text in TURNS[1:]]
    body = {"prompt": turns, "system": "be brief", "max_length": 8, "strategy": "greedy"}
    assert server.post("/infer", body).json()["output"] == same.choices[0].text
    raw = server.post("/infer", {"prompt": "over", "chat": False, "max_length": 2, "details": True}).json()
    wrapped = server.post("/infer", {"prompt": "over", "max_length": 2, "details": True}).json()
    assert wrapped["prompt_tokens"] > raw["prompt_tokens"] == len(encode("over"))


def test_a_template_that_never_ends_holds_up_nobody_for_long(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    with ThreadPoolExecutor() as pool, server.client() as client:
        bomb = pool.submit(server.post, "/infer", {"prompt": "bomb", "max_length": 2})
        until(lambda: server.app.dispatcher.running)
        assert client.get("/health").status_code == 200
        assert not bomb.done()
    error = bomb.result().json()["error"]
    assert bomb.result().status_code == 422  # a client that may repeat a request repeats no such one
    assert "chatty cannot render this conversation (it takes more than 2 s)" in error["message"]
    assert server.post("/infer", {"prompt": "bomb", "chat": False, "max_length": 2}).status_code == 200


def test_a_client_that_leaves_ends_its_template(server: Running) -> None:
    before = len(server.engine.cancelled)
    with pytest.raises(httpx.TimeoutException), server.client() as client:
        client.post("/infer", json={"prompt": "bomb"}, timeout=0.2)
    until(lambda: len(server.engine.cancelled) > before)
    server.settle()


@pytest.mark.parametrize("path", ["/infer", "/v1/chat/completions"])
def test_template_variables_reach_the_template(server: Running, path: str) -> None:
    turns = [{"role": "user", "content": "a"}]
    said = {"prompt": turns, "max_length": 1, "details": True} if path == "/infer" else {"messages": turns}

    def length(variables: dict[str, object]) -> int:
        answer = server.post(path, {**said, "chat_template_kwargs": variables})
        answer.raise_for_status()
        told = answer.json()
        return int(told["prompt_tokens"] if path == "/infer" else told["usage"]["prompt_tokens"])

    assert length({"wordy": True}) > length({}) == length({"wordy": False})
    refused = server.post(path, {**said, "chat_template_kwargs": {"bos_token": "x"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "chat_template_kwargs")
