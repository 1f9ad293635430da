"""The chain of a strategy, edited without a screen."""

from __future__ import annotations

import pytest

from edge_tui import decoders
from edge_tui.config.settings import load
from edge_tui.tui.chain_editor import ChainEditor
from edge_tui.tui.run_params import RunParams
from tests.tui.test_strategy_controller import Choosing


class Editing(Choosing):
    """A chain with what stands around it."""

    def __init__(self, strategy: str = "top_p", held: bool = False) -> None:
        super().__init__(held)
        self.values.decoder = decoders.find(strategy)
        self.sent: list[str] = []
        self.editor = ChainEditor(self.values, self.strategies.switch, self.sent.append)

    @property
    def titles(self) -> list[str]:
        return [line.title for line in self.editor.lines]

    @property
    def name(self) -> str:
        return self.values.decoder.name


def test_a_plain_name_is_a_preset_of_a_chain() -> None:
    editing = Editing()
    assert editing.titles == ["penalties", "temperature", "top-p"]
    editing.values.set("order", "llama.cpp")
    assert editing.titles == ["penalties", "top-p", "temperature"]
    assert [line.is_off for line in editing.editor.lines] == [True, False, True]
    assert editing.editor.lines[1].values == "top p 0.9"


def test_stages_move_come_and_go() -> None:
    editing = Editing()
    assert editing.editor.move(2, -1) == ""
    assert editing.name == "penalties+top_p+temperature"
    assert editing.editor.move(0, -1) == "penalties is the first stage."
    assert editing.editor.move(2, 1) == "temperature is the last stage."
    place = editing.editor.place_behind(1, "top_p")
    assert editing.editor.add(place, "top_p") == ""
    assert editing.name == "penalties+top_p+top_p#2+temperature"
    assert editing.titles[2] == "top-p #2"
    assert editing.editor.remove(0) == ""
    assert editing.name == "top_p+top_p#2+temperature"


def test_a_stage_that_selects_is_added_at_the_end_wherever_the_cursor_stands() -> None:
    editing = Editing()
    assert editing.editor.add(editing.editor.place_behind(0, "mirostat"), "mirostat") == ""
    assert editing.name == "penalties+temperature+top_p+mirostat"
    assert editing.editor.add(editing.editor.place_behind(3, "top_k"), "top_k") == ""
    assert editing.name == "penalties+temperature+top_p+top_k+mirostat"
    refused = editing.editor.add(editing.editor.place_behind(1, "adaptive_p"), "adaptive_p")
    assert "leave one of them out" in refused


def test_the_last_stage_stays() -> None:
    editing = Editing("top_p+temperature")
    assert "top_p alone is a strategy of its own" in editing.editor.remove(1)
    assert editing.editor.remove(0) == ""
    assert editing.name == "temperature"
    assert editing.editor.remove(0) == "A chain has one stage at least."


def test_values_stay_where_the_chain_changes() -> None:
    editing = Editing()
    settings, _ = load({"parameters.top_p.top_p": 0.7, "mode": "focused"}, {})
    editing.values.settings = settings
    assert editing.editor.move(2, -1) == ""
    shown = {row.key: row.shown for row in editing.values.rows()}
    assert (shown["top_p"], shown["temperature"]) == ("0.7", "0.7")


def test_around_a_search_its_own_stages_stay_in_place() -> None:
    editing = Editing("beam")
    assert editing.titles == ["penalties", "beam"]
    assert editing.editor.remove(0) == "penalties belongs to beam and stays in its place."
    assert "belongs to beam" in editing.editor.move(1, 1)
    for name in ("top_k", "min_p"):
        assert editing.editor.add(editing.editor.place_behind(len(editing.titles) - 1, name), name) == ""
    assert editing.name == "beam:top_k+min_p"
    assert editing.titles == ["penalties", "beam", "top-k", "min-p"]
    assert editing.editor.move(3, -1) == ""
    assert editing.name == "beam:min_p+top_k"
    assert editing.editor.toggle(1) == "beam is the strategy itself."
    for _ in range(2):
        assert editing.editor.remove(2) == ""
    assert editing.name == "beam"


def test_a_chain_that_cannot_be_is_a_sentence_and_changes_nothing() -> None:
    editing = Editing("beam")
    assert "beam has the stage penalties already" in editing.editor.add(0, "penalties")
    assert editing.name == "beam"
    editing.strategies.refusals["beam"] = ""
    editing.session.attach(editing.engine)  # type: ignore[arg-type]
    editing.engine.refusals["beam:top_k"] = "There is no top_k."
    assert editing.editor.add(0, "top_k") == "There is no top_k."
    assert editing.name == "beam"


def test_a_muted_stage_has_neutral_values_until_it_is_restored() -> None:
    editing = Editing()
    editing.values.set("top_p", 0.5)
    assert editing.editor.toggle(2) == ""
    assert editing.values.request("a").values["top_p"] == 1.0
    assert editing.editor.lines[2].is_off
    assert editing.editor.toggle(2) == ""
    assert editing.values.request("a").values["top_p"] == 0.5
    assert editing.sent == ["top_p", "top_p"]
    editing.values.reset("top_p")
    editing.editor.toggle(2)
    editing.editor.toggle(2)
    assert "top_p" not in editing.values.request("a").values, "its value is the default's again"


def test_what_cannot_be_muted_says_why() -> None:
    editing = Editing("p_less+min_p+bad_words")
    assert editing.editor.toggle(0).startswith("p-less has no value at which it does nothing")
    assert editing.editor.toggle(2).startswith("bad words does nothing with its values")
    editing.values.set("bad_words", "one | two")
    assert editing.editor.toggle(2) == "It holds from the next run on."
    assert editing.values.request("a").values["bad_words"] == ()
    editing.editor.toggle(2)
    assert editing.values.request("a").values["bad_words"] == ("one", "two")


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("transformers", "penalties+temperature+top_k+top_p"),
        ("llama.cpp", "penalties+top_k+top_p+temperature"),
    ],
)
def test_the_order_of_another_program(program: str, name: str) -> None:
    editing = Editing("top_p+penalties+temperature+top_k")
    assert editing.editor.put_in_order(program) == ""
    assert editing.name == name
    assert editing.editor.put_in_order(program) == f"The chain is in the order of {program}."


def test_a_value_that_two_strategies_share_is_the_users_where_their_settings_differ() -> None:
    settings, _ = load({"parameters.top_p.top_p": 0.7}, {})
    values = RunParams(settings, decoders.find("top_p"))
    values.switch(decoders.find("top_p+temperature"))
    assert values.request("a").values == {"top_p": 0.7}
    assert values.request("a").sources == {"top_p": "user"}
