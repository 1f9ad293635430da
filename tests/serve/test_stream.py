"""Server-sent events as they stand on the wire."""

from __future__ import annotations

from edge_tui.serve.stream import format_event


def test_numbers_that_json_lacks_are_null_at_any_depth() -> None:
    data = {"logprob": float("-inf"), "alternatives": [{"logprob": float("nan")}, {"logprob": -1.5}]}
    line = '{"logprob":null,"alternatives":[{"logprob":null},{"logprob":-1.5}]}'
    assert format_event(data, "token") == f"event: token\ndata: {line}\n\n"
