"""docs/writing-a-strategy.md to the letter: its learner and its two prompts, checked as it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Filter
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = (Path(__file__).parent.parent.parent / "docs" / "writing-a-strategy.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILES = [block for block in BLOCKS if "class " in block]
CHECKS = [block for block in BLOCKS if "class " not in block]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("strategies")
    for number, code in enumerate(FILES):
        (folder / f"file_{number}.py").write_text(code)
    decoders.load([folder])
    assert not decoders.current().problems
    model = make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", seed=3)
    engine = LocalEngine({"model": ModelSpec(str(model), device="cpu", precision="float32")})
    yield engine
    assert engine.close(60.0)
    decoders.load([])


def test_the_checks_pass_as_they_are_written() -> None:
    names: dict[str, Any] = {}
    for code in FILES:
        exec(compile(code, "docs/writing-a-strategy.md", "exec"), names)
    kinds = {"TopA": Filter, "MyMirostat": Filter, "MyCfg": Decoder}
    assert all(issubclass(names[name], kind) for name, kind in kinds.items())
    (check,) = CHECKS
    assert check.count("check(My") == 3
    exec(compile(check, "docs/writing-a-strategy.md", "exec"), names)


def test_the_learner_goes_on_as_if_never_interrupted(engine: LocalEngine) -> None:
    request = Request("ab", "my_mirostat", {"tau": 3.0, "temperature": 1.2}, seed=5, max_length=12)
    whole = watch(engine, request)
    rest = watch(engine, replace(request, prefix=tuple(whole.ids[:5]), max_length=7))
    assert rest.ids == whole.ids[5:]
    with pytest.raises(decoders.UnknownStrategy, match="top_k cannot follow it"):
        decoders.find("my_mirostat+top_k")


def test_the_negative_prompt_is_read_and_gamma_one_is_none(engine: LocalEngine) -> None:
    request = Request("ab", "my_cfg", {"gamma": 1.0, "negative": "xyz"}, seed=5, max_length=12)
    plain = watch(engine, replace(request, strategy="top_k", values={"top_k": 0}))
    assert watch(engine, request).ids == plain.ids
    strong = watch(engine, replace(request, values={"gamma": 4.0, "negative": "xyz"}))
    other = watch(engine, replace(request, values={"gamma": 4.0, "negative": "qrst"}))
    assert plain.ids != strong.ids != other.ids
    around = replace(request, strategy="my_cfg:penalties+temperature+min_p", values={"gamma": 4.0})
    assert len(watch(engine, around).ids) == 12
