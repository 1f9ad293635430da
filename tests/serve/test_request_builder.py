"""The request builder merges a client's fields with the server's settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.config.settings import Settings, load, user_config
from edge_tui.config.writer import change
from edge_tui.engine import seeds
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.engine.port import Message, Request
from edge_tui.serve.errors import ApiError
from edge_tui.serve.options import Options
from edge_tui.serve.request_builder import RequestBuilder
from edge_tui.serve.schemas import Completion, Infer
from tests.serve.serving import DEMO

TURNS = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))


def build(changes: dict[str, Any], prompt: Any = "a", **fields: Any) -> Request:
    return _build(replace(DEMO, **changes), prompt, fields)


def _build(settings: Settings, prompt: Any, fields: dict[str, Any]) -> Request:
    """Builds the request of a completion where the fields are OpenAI's, else of `/infer`."""
    schema = Completion if "temperature" in fields else Infer
    body = schema.model_validate({"prompt": "a", **fields})
    return RequestBuilder(settings, Options()).build(body, prompt, max_length=4, chat=False)


def test_turns_derive_their_seeds_from_the_servers_and_not_from_their_own() -> None:
    assert build({"seed": 7}, TURNS).seed == seeds.of_turn(7, 1)
    assert build({"seed": 7}, TURNS, seed=7).seed == 7
    assert build({"seed": 7}).seed == build({"seed": 7}, (1, 2)).seed == 7
    assert build({}, TURNS).seed is None


@pytest.mark.parametrize(
    ("length", "fields", "param"),
    [
        (9, {}, "max_tokens"),
        (8, {"n": 3}, "n"),
        (8, {"strategy": "beam", "params": {"num_beams": 3}}, "n"),
    ],
)
def test_more_than_the_server_gives_is_refused(length: int, fields: dict[str, Any], param: str) -> None:
    builder = RequestBuilder(DEMO, Options(tokens=8, rows=2))
    with pytest.raises(ApiError) as refused:
        builder.build(Infer.model_validate({"prompt": "a", **fields}), "a", max_length=length, chat=False)
    assert (refused.value.status_code, refused.value.param) == (422, param)


def test_template_variables_of_a_request_lie_on_top_of_the_servers() -> None:
    own = {"template": {"enable_thinking": True, "effort": "low"}}
    assert build(own, TURNS, chat_template_kwargs={"enable_thinking": False}).template == {
        "enable_thinking": False,
        "effort": "low",
    }


@pytest.mark.parametrize(
    ("of_server", "request_", "expected"),
    [
        ({"mode": "focused"}, {}, (0.7, "mode focused, config.toml:1")),
        ({"mode": "focused"}, {"params": {"temperature": 0.3}}, (0.3, "request")),
        ({"mode": "focused"}, {"temperature": 0.3}, (0.3, "request")),
        ({"mode": "focused"}, {"mode": "custom"}, (0.9, "config.toml:3")),
        ({}, {"mode": "exploratory"}, (1.5, "mode exploratory, request")),
        ({}, {"mode": "exploratory", "params": {"temperature": 0.3}}, (1.5, "mode exploratory, request")),
        ({"flag": True, "mode": "focused"}, {}, (0.4, "--set")),
        ({"flag": True, "mode": "focused"}, {"mode": "focused"}, (0.7, "mode focused, request")),
    ],
)
def test_a_request_wins_over_the_servers_settings(
    of_server: dict[str, Any], request_: dict[str, Any], expected: tuple[float, str]
) -> None:
    file = {"mode": of_server.get("mode", "custom"), "parameters.temperature": 0.9}
    user_config().unlink(missing_ok=True)
    change(user_config(), file)
    settings, notices = load({"parameters.temperature": 0.4} if of_server.get("flag") else {}, {})
    assert notices == []
    request = _build(replace(settings, strategy="top_p"), "a", request_)
    resolved = resolve_params(request, decoders.find("top_p"), {}).resolved["temperature"]
    where = resolved.source.replace("config.toml:4", "config.toml:3")
    assert (pytest.approx(resolved.value), where) == expected
