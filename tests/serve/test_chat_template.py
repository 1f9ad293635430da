"""Conversations on a checkpoint with a chat template: the server renders them as the engine does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import openai
import pytest

from edge_tui.config.settings import Models
from edge_tui.engine.port import Message
from edge_tui.engine.text import chat_template
from tests.engine.checkpoints import make_checkpoint
from tests.serve.serving import DEMO, Running, serving

TURNS = [("system", "be brief"), ("user", "the quick fox"), ("assistant", "jumps"), ("user", "over")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = make_checkpoint(tmp_path_factory.mktemp("models") / "chatty", chat_template=True, seed=3)
    with serving(replace(DEMO, models=Models(name=str(folder)))) as running:
        yield running


def test_a_conversation_is_the_rendered_prompt(server: Running) -> None:
    loaded = server.engine._residents.peek("model")
    assert loaded is not None
    rendered = chat_template.render(loaded.checkpoint, [Message(role, text) for role, text in TURNS])  # type: ignore[arg-type]
    assert rendered is not None
    ids = loaded.codec.encode(rendered, special=False)
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
    assert wrapped["prompt_tokens"] > raw["prompt_tokens"] == len(loaded.codec.encode("over"))
