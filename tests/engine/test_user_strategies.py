"""Strategies of a user's own that break the contract: each is an error with stage, file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent, indent

import pytest

from edge_tui import decoders
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from tests.engine.watch import Watched, watch

PROMPT = "the quick brown fox"
FILTER = """from edge_tui.decoders.base import Filter, Param


class Mine(Filter):
    name = "mine"
    title = "mine"
    summary = "A filter with a mistake."
    params = (Param("a", 0.5, 0.0, 1.0, "Does little.", neutral=0.0),)

{body}
"""
APPLY = """
def apply(self, z, p, s, rng):
    return {value}
"""


@pytest.fixture
def run(tmp_path: Path, engine: LocalEngine) -> Iterator[Callable[..., Watched]]:
    """Decodes with a file of strategies."""

    def one(text: str, length: int = 12, **request: object) -> Watched:
        (tmp_path / "mine.py").write_text(text)
        decoders.load([tmp_path])
        assert not decoders.problems()
        return watch(engine, Request(PROMPT, "mine", seed=3, max_length=length, **request))  # type: ignore[arg-type]

    yield one
    decoders.load()


def filter_of(body: str) -> str:
    return FILTER.format(body=indent(dedent(body).strip(), "    "))


def test_what_a_step_raises_names_its_file_line_and_type(run: Callable[..., Watched]) -> None:
    failed = run(filter_of(APPLY.format(value="z.foo()"))).failed
    assert failed.message == (
        "mine.py, line 11: Mine.apply raised AttributeError: 'Tensor' object has no attribute 'foo'."
    )
    assert failed.problem is not None
    assert (Path(failed.problem.source).name, failed.problem.line) == ("mine.py", 11)
    assert (
        "mine.py, line 11: Mine.apply raised SystemExit"
        in run(filter_of("def apply(self, z, p, s, rng):\n    raise SystemExit(3)")).failed.message
    )
