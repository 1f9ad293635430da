"""Chains as users type them: their order, their parameters, and what is refused."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders import UnknownStrategy
from edge_tui.decoders.base import Env, Output
from edge_tui.decoders.registry.chain_text import join, names_in, write_chain
from edge_tui.decoders.registry.sampling import Sampling
from tests.decoders.driver import numbers, param_values, table

if TYPE_CHECKING:
    from pathlib import Path

CALM = """
from edge_tui.decoders.base import Filter, Param

class Calm(Filter):
    name, title, summary = "calm", "calm", "Halves all logits."
    penalty = True

    def apply(self, z, p, s, rng):
        return z / 2
"""
Z = torch.tensor([[4.0, 2.0, 1.0, 0.0, -1.0]])


def final(text: str, **values: object) -> list[bool]:
    """Lists which of five tokens a chain keeps."""
    decoder = decoders.find(text)
    env = Env(1, 5, "cpu", torch.tensor([[0]]), torch.tensor([]), param_values(decoder), 9)
    step = decoder.step({"model": Output(Z[:, None])}, decoder.init(env), table(decoder, **values), numbers())
    return [bool(kept) for kept in step.final[0] > -torch.inf]


def test_the_text_is_the_order_and_nothing_is_inserted() -> None:
    hot = {"temperature": 4, "top_p": 0.8}
    assert final("temperature+top_p", **hot) == [True, True, True, True, False]
    assert final("top_p+temperature", **hot) == [True, False, False, False, False]
    assert [p.name for p in decoders.find("top_p+temperature").params] == ["top_p", "temperature"]


def test_one_text_is_one_object_whatever_its_spelling() -> None:
    assert decoders.find("Min-P + temperature") is decoders.find("min_p+temperature")
    assert decoders.find("nucleus+temperature").name == "top_p+temperature"


def test_a_stage_that_stands_twice_has_parameters_of_its_own() -> None:
    assert final("top_k+top_k#2", top_k=3, top_k_2=2) == [True, True, False, False, False]
    assert final("top_k+top_k#2", top_k=1, top_k_2=2) == [True, False, False, False, False]
    assert final("top_k+top_k#2", top_k=0, top_k_2=0) == [True] * 5


def test_a_chain_around_a_strategy_puts_penalties_before_and_others_after() -> None:
    beam = decoders.find("beam:min_p")
    assert beam.name == "beam:min_p"
    assert [link.name for link in beam.after.links] == ["min_p"]
    assert [link.name for link in beam.before.links] == ["penalties"]
    assert beam.params[: len(decoders.find("beam").params)] == decoders.find("beam").params
    assert decoders.find("beam").after.links == ()
    assert final("greedy:top_k", top_k=2) == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("top_k+top_k", "write top_k#2"),
        ("top_k#2+top_p", "write top_k"),
        ("top_k+", "has an empty place"),
        ("beam:", "has an empty place"),
        ("top_k+top_k#x", "a number follows #"),
        ("foo+top_k", "There is no stage 'foo' for a chain; there are "),
        ("nobody:top_k", "There is no strategy 'nobody'"),
        ("beam:penalties", "beam has the stage penalties already"),
        ("beam:min_p:top_k", "one chain around it"),
        ("mirostat+top_k", "top_k cannot follow it: put mirostat at the end, as in top_k+mirostat"),
        ("mirostat:dry+top_k", "top_k cannot follow it"),
        ("adaptive_p:mirostat", "mirostat cannot follow it: leave one of them out."),
        ("mirostat+mirostat#2", "mirostat#2 cannot follow it: leave one of them out."),
        ("cfg+top_k", "cfg is no stage of a chain: put one around it, as in cfg:top_a."),
        ("top_k+beam", "beam is no stage of a chain"),
        ("beam:mirostat+min_p", "min_p cannot follow it"),
        ("top_k+" * 32 + "top_p", "The chain has 33 stages; write at most 32."),
    ],
)
def test_a_chain_that_cannot_be_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UnknownStrategy) as error:
        decoders.find(text)
    assert words in str(error.value)


def test_the_chain_that_a_refusal_proposes_is_one() -> None:
    around = [each.name for each in decoders.strategies() if not isinstance(each, Sampling)]
    assert len(around) > 9
    for name in around:
        with pytest.raises(UnknownStrategy, match=f"as in {name}:top_a"):
            decoders.find(f"{name}+top_k")
        assert decoders.find(f"{name}:top_a").name == f"{name}:top_a"


def test_a_stage_whose_file_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text(CALM.replace("return z / 2", "return z /"))
    registry = decoders.Registry.load([tmp_path])
    for text in ("calm+top_k", "beam:calm"):
        with pytest.raises(UnknownStrategy, match=r"The stage 'calm' cannot be used\. .*calm\.py, line 9"):
            registry.find(text)


def test_a_stage_that_is_no_strategy_is_a_chain_of_its_own() -> None:
    assert decoders.find("temperature").name == "temperature"
    assert [param.name for param in decoders.find("Temperature").params] == ["temperature"]
    assert decoders.find("min_p") in decoders.strategies()


def test_a_penalty_around_a_sampler_stands_behind_its_penalties(tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text(CALM)
    around = decoders.Registry.load([tmp_path]).find("top_p:calm+top_k")
    before = [link.name for link in around.before.links]
    assert before == ["penalties", "calm", "temperature", "top_p", "temperature"]
    assert [link.name for link in around.after.links] == ["top_k"]


def test_the_parts_of_a_chain_are_written_and_read() -> None:
    assert write_chain(["top_k", "min_p", "top_k", "top_k"]) == "top_k+min_p+top_k#2+top_k#3"
    assert names_in("beam:min_p+top_k#2") == ("beam", ("min_p", "top_k"))
    assert names_in("min_p") == ("", ("min_p",))
    assert [join("beam", "a+b"), join("beam:a", "b"), join("a+b", "c")] == ["beam:a+b", "beam:a+b", "a+b+c"]


def test_many_chains_leave_no_more_objects_than_a_bound() -> None:
    registry = decoders.Registry.load()
    first = registry.find("top_k+min_p")
    for names in itertools.product(("min_p", "typical", "temperature", "penalties"), repeat=5):
        registry.find(write_chain(names))
    assert registry.find("top_k+min_p") is not first
