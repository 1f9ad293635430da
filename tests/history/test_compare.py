from __future__ import annotations

import pytest

from edge_tui.history.compare import Comparison


@pytest.mark.parametrize(
    ("shared", "parted", "said"),
    [
        (0, True, "They differ from the first token on."),
        (1, True, "The first token is the same; they part at #1."),
        (1200, True, "The first 1,200 tokens are the same; they part at #1,200."),
        (7, False, "No token differs in the 7 that both have."),
    ],
)
def test_the_verdict_names_the_token_as_the_inspector_does(shared: int, parted: bool, said: str) -> None:
    assert Comparison((), shared, parted).verdict == said
