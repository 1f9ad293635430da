"""Parameters that are text over HTTP: `/infer`, OpenAI's routes, the schema, another edge-tui."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edge_tui import decoders
from edge_tui.decoders.base import ParamError
from edge_tui.engine.events import Started
from edge_tui.engine.port import Request
from edge_tui.engine.remote.engine import RemoteEngine
from tests.ban import BAN
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_tui.engine.events import Event
    from tests.serve.serving import Running

PROMPT = "Once upon a time"


@pytest.fixture(autouse=True)
def _strategies(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "ban.py").write_text(BAN)
    decoders.load([tmp_path])
    yield
    decoders.load()


def body(**params: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "strategy": "ban", "params": params, "max_length": 40, "seed": 1}


def test_infer_takes_texts_and_tells_them(server: Running) -> None:
    plain = server.post("/infer", body()).json()["output"]
    assert {"e", "t"} <= set(plain)
    answer = server.post("/infer", {**body(words=["e", "t"], start=" "), "details": True}).json()
    assert not {"e", "t"} & set(answer["output"])
    assert answer["output"].startswith(" ")
    assert answer["params"]["words"] == {"value": ["e", "t"], "source": "request"}
    assert answer["params"]["start"] == {"value": " ", "source": "request"}
    start = server.stream("/infer/stream", body(words="e"))[0][1]
    assert start["params"]["words"]["value"] == ["e"]


def test_openais_routes_take_them_as_extra_fields(server: Running) -> None:
    asked = {"prompt": PROMPT, "max_tokens": 40, "seed": 1, "strategy": "ban", "params": {"words": ["e"]}}
    answer = server.post("/v1/completions", asked).json()
    assert "e" not in answer["choices"][0]["text"]
    assert answer["edge_tui"]["runs"][0]["params"]["words"] == ["e"]


@pytest.mark.parametrize(
    ("params", "field", "sentence"),
    [
        ({"words": 3}, "words", "words is 3.0, but must be a list of texts of at most 10,000 characters."),
        ({"words": ["b4"]}, "words", "words has 'b4', but must have no digit."),
        ({"start": ["a"]}, "start", "start is ('a',), but must be a text of at most 10,000 characters."),
        ({"start": True}, "start", "start is True, but must be a text"),
        ({"weight": "heavy"}, "weight", "weight is 'heavy', but must be a number from 0 to 2."),
        ({"weight": ["1"]}, "weight", "weight is ('1',), but must be a number from 0 to 2."),
        ({"start": "x" * 10_001}, "start", "with 10,001 characters, but must be a text"),
        ({"words": ["\x1b[m" * 4000]}, "words", "words is ('\\x1b[m\\x1b[m"),
        ({"word": "e"}, "word", "ban has no parameter 'word'; it has words, start, weight"),
    ],
)
def test_a_mistake_is_a_422_that_names_it(
    server: Running, params: dict[str, Any], field: str, sentence: str
) -> None:
    answer = server.post("/infer", body(**params))
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == field
    assert sentence in error["message"]


@pytest.mark.parametrize("first", [["e"], 3, {}])
def test_a_list_of_something_else_is_a_422(server: Running, first: Any) -> None:
    answer = server.post("/infer", body(words=[first, "e"]))
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "params.words.0"
    assert answer.json()["error"]["message"] == "params.words.0: Input should be a valid string."


def test_the_schema_states_the_limit(server: Running) -> None:
    with server.client() as client:
        found = client.get("/openapi.json").json()["components"]["schemas"]["BanParams"]["properties"]
    text = {"type": "string", "maxLength": 10_000}
    assert found["words"] == {
        "title": "words",
        "description": "Texts that no token may hold.",
        "anyOf": [text, {"type": "array", "items": text}],
        "default": [],
    }
    assert found["start"] == {
        "title": "first",
        "description": "The text that the first token begins with.",
        "default": "",
        **text,
    }


def test_another_edge_tui_sends_and_reads_them(server: Running) -> None:
    remote = RemoteEngine(server.url)
    refused: list[str] = []

    def turn(run: int, events: list[Event]) -> None:
        if not refused and any(isinstance(event, Started) for event in events):
            with pytest.raises(ParamError) as error:
                remote.set(run, "words", ("a",))
            refused.append(str(error.value))

    try:
        values = {"words": ("e", "t"), "start": ""}
        sources = {"words": "you"}
        request = Request(PROMPT, "ban", values=values, sources=sources, seed=1, max_length=40)
        seen = watch(remote, request, during=turn)
    finally:
        remote.close()
    assert not {"e", "t"} & set(seen.text)
    words = seen.started.values["words"]
    assert (words.value, words.source) == (("e", "t"), "you")
    assert refused == ["words is fixed while a run goes on; it applies to the next run."]


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        ({"temperature": 0}, "greedy:logit_bias"),
        ({"top_p": 0.9, "presence_penalty": 0.5}, "top_p:logit_bias"),
        ({"strategy": "beam"}, "beam:logit_bias"),
        ({"strategy": "temperature+top_p"}, "logit_bias+temperature+top_p"),
        ({"strategy": "top_k:min_p"}, "top_k:min_p+logit_bias"),
        ({"strategy": "logit_bias"}, "logit_bias"),
    ],
)
def test_openais_logit_bias_is_a_stage_around_the_strategy(
    server: Running, asked: dict[str, Any], strategy: str
) -> None:
    said = {"prompt": PROMPT, "max_tokens": 12, "seed": 1, **asked}
    token = server.engine.decode(range(200)).index("e")
    answer = server.post("/v1/completions", {**said, "logit_bias": {str(token): 100}}).json()
    assert answer["choices"][0]["text"] == "e" * 12
    run = answer["edge_tui"]["runs"][0]
    assert run["strategy"] == strategy
    assert run["params"]["logit_bias"] == [f"#{token}=100"]
    plain = server.post("/v1/completions", said).json()["choices"][0]["text"]
    assert server.post("/v1/completions", {**said, "logit_bias": {}}).json()["choices"][0]["text"] == plain


@pytest.mark.parametrize(
    ("bias", "sentence"),
    [
        ({"5": 101}, "less than or equal to 100"),
        ({"x": 1}, "valid integer"),
        ({"5": True}, "not true or false"),
        ({"-1": 1}, "greater than or equal to 0"),
        ({"999999": 1}, "logit_bias names the token 999999, but ids go from 0 to"),
        ({str(10**8 + n): 1 for n in range(900)}, "must be a list of texts of at most 10,000 characters"),
    ],
)
def test_a_bias_that_cannot_be_is_refused(server: Running, bias: dict[str, Any], sentence: str) -> None:
    said = {"messages": [{"role": "user", "content": "a"}], "logit_bias": bias, "max_tokens": 2}
    answer = server.post("/v1/chat/completions", said)
    assert answer.status_code in (400, 422)
    assert sentence in answer.json()["error"]["message"]
