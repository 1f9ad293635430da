"""What a server makes of a request and of its own settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_tui.engine import seeds
from edge_tui.engine.port import Message, Request
from edge_tui.serve.options import Options
from edge_tui.serve.request_builder import Asked
from tests.serve.serving import DEMO

TURNS = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))


def asked(changes: dict[str, Any], prompt: Any = "a", **request: Any) -> Request:
    return Asked(replace(DEMO, **changes), Options()).request(prompt, tokens=4, **request)


def test_turns_derive_their_seeds_from_the_servers_and_not_from_their_own() -> None:
    assert asked({"seed": 7}, TURNS).seed == seeds.of_turn(7, 1)
    assert asked({"seed": 7}, TURNS, seed=7).seed == 7
    assert asked({"seed": 7}).seed == asked({"seed": 7}, (1, 2)).seed == 7
    assert asked({}, TURNS).seed is None


def test_template_variables_of_a_request_lie_on_top_of_the_servers() -> None:
    own = {"template": {"enable_thinking": True, "effort": "low"}}
    assert asked(own, TURNS, template={"enable_thinking": False}).template == {
        "enable_thinking": False,
        "effort": "low",
    }
