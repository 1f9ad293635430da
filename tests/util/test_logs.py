"""The one line of an error that users read."""

from __future__ import annotations

import pytest

from edge_tui.util import logs


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one.\ntwo", "one"),
        ("field 'x':\n    TypeError: expected int.\nmore", "field 'x': TypeError: expected int"),
        ("what:", "what:"),
        ("", "ValueError"),
    ],
)
def test_a_line_that_announces_another_takes_it_along(message: str, line: str) -> None:
    assert logs.first_line(ValueError(message)) == line
