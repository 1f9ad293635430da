"""Groups of the list of strategies, chains that are no more than their stages, orders of programs."""

from __future__ import annotations

import pytest

from edge_tui import decoders
from edge_tui.decoders.registry.description import (
    GROUPS,
    acting_links,
    group_of,
    is_chain,
    summary_of,
    title_of,
)
from edge_tui.decoders.registry.orders import ORDERS, put_in_order

STAGES = {stage.name: stage for stage in decoders.current().stages()}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("greedy", "sampling"),
        ("top_p", "sampling"),
        ("bad_words", "penalties"),
        ("dry", "penalties"),
        ("cfg", "two streams"),
        ("contrastive", "two streams"),
        ("dola", "hidden states"),
        ("beam", "search"),
        ("speculative", "proposals"),
        ("top_p+temperature", "sampling"),
        ("beam:top_k", "search"),
    ],
)
def test_a_group_is_a_fact_of_the_class(name: str, group: str) -> None:
    assert group_of(decoders.find(name)) == group


def test_every_strategy_has_a_group_of_the_list() -> None:
    assert {group_of(each) for each in decoders.strategies()} <= set(GROUPS)


def test_a_sampler_is_its_chain_and_a_search_is_more() -> None:
    for name in ("top_p", "min_p+temperature", "top_p:top_k", "bad_words"):
        assert is_chain(decoders.find(name)), name
    for name in ("greedy", "beam", "auto", "contrastive", "speculative", "beam:top_k"):
        assert not is_chain(decoders.find(name)), name


def test_of_two_temperatures_the_one_of_the_order_acts() -> None:
    for order, names in enumerate(
        (["penalties", "temperature", "top_p"], ["penalties", "top_p", "temperature"])
    ):
        before, after = acting_links(decoders.find("top_p"), {"order": order})
        assert [link.name for link in before] == names
        assert after == ()


def test_a_stage_has_a_title_and_a_sentence() -> None:
    assert (title_of(STAGES["top_p"]), title_of(STAGES["penalties"])) == ("top-p", "penalties")
    assert summary_of(STAGES["top_p"]) == decoders.find("top_p").summary
    assert all(summary_of(stage) for stage in STAGES.values())


def test_stages_come_into_another_programs_order_each_among_its_kind() -> None:
    mine = ["top_p", "xtc", "temperature", "bad_words", "top_k", "penalties"]
    assert put_in_order(mine, "transformers", STAGES) == [
        *("penalties", "bad_words", "temperature", "top_k", "top_p", "xtc")
    ]
    assert put_in_order(mine, "llama.cpp", STAGES) == [
        *("penalties", "bad_words", "top_k", "top_p", "xtc", "temperature")
    ]


def test_an_order_begins_with_penalties_and_places_the_temperature() -> None:
    for order in ORDERS.values():
        assert order.index("penalties") < min(order.index("top_k"), order.index("temperature"))
        assert len(set(order)) == len(order)
    assert ORDERS["transformers"].index("temperature") < ORDERS["transformers"].index("top_k")
    assert ORDERS["llama.cpp"][-1] == "temperature"
