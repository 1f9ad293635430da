"""Parameters that are text in the engine: what a strategy gets of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.decoders.base import ParamError
from edge_tui.engine.events import FirstToken
from edge_tui.engine.port import Request
from tests.ban import BAN
from tests.engine.watch import watch

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.decoders.base import Value
    from edge_tui.engine.events import Event
    from edge_tui.engine.local import LocalEngine
    from tests.engine.watch import Watched


@pytest.fixture
def run(tmp_path: Path, engine: LocalEngine) -> Iterator[Callable[..., Watched]]:
    """Decodes with the strategy that bans texts."""
    (tmp_path / "ban.py").write_text(BAN)
    decoders.load([tmp_path])
    assert not decoders.current().problems

    def one(**values: Value) -> Watched:
        return watch(engine, Request("the quick brown fox", "ban", values=values, seed=3, max_length=60))

    yield one
    decoders.load()


def test_a_strategy_reads_texts_and_tokenizer(run: Callable[..., Watched]) -> None:
    plain = run().text
    assert {"e", "o"} <= set(plain)
    banned = run(words=("e", "o"))
    assert not {"e", "o"} & set(banned.text)
    assert banned.started.values["words"].value == ("e", "o")
    assert banned.started.values["words"].source == "user"
    assert (banned.started.values["start"].value, banned.started.values["start"].source) == ("", "default")
    assert run(words="e").text == run(words=["e", ""]).text
    assert run(start="q").text.startswith("q")
    assert run().text == plain  # nothing of a text outlives its run


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"words": 3}, "words is 3, but must be a list of texts of at most 10,000 characters."),
        ({"start": ("a",)}, "start is ('a',), but must be a text of at most 10,000 characters."),
        ({"weight": "heavy"}, "weight is 'heavy', but must be a number from 0 to 2."),
        ({"weight": ("1", "2")}, "weight is ('1', '2'), but must be a number from 0 to 2."),
        ({"words": ("a", "b2")}, "words has 'b2', but must have no digit."),
        ({"start": "qqqqqqqq"}, "start is 'qqqqqqqq', but no token begins with it."),
        ({"word": "a"}, "ban has no parameter 'word'; it has words, start, weight,"),
    ],
)
def test_another_value_is_refused_before_anything_is_decoded(
    run: Callable[..., Watched], values: dict[str, Value], sentence: str
) -> None:
    failed = run(**values).failed
    assert sentence in failed.message
    assert failed.field == next(iter(values))


def test_a_text_is_fixed_while_a_run_goes_on(run: Callable[..., Watched], engine: LocalEngine) -> None:
    refused: list[str] = []

    def turn(number: int, events: list[Event]) -> None:
        if not refused and any(isinstance(event, FirstToken) for event in events):
            for name, value in (("words", ("a",)), ("words", 3), ("weight", 1)):
                with pytest.raises(ParamError) as error:
                    engine.set(number, name, value)
                refused.append(str(error.value))
            engine.cancel(number)

    run(words=("e",))  # knows the strategy's file
    watch(engine, Request("the quick brown fox", "ban", max_length=100_000), during=turn)
    assert refused == [
        "words is fixed while a run goes on; it applies to the next run.",
        "words is 3, but must be a list of texts of at most 10,000 characters.",
        "weight is fixed while a run goes on; it applies to the next run.",
    ]


def holds(ids: list[int], sequence: list[int]) -> bool:
    return any(ids[at : at + len(sequence)] == sequence for at in range(len(ids)))


@pytest.mark.parametrize(
    "strategy", ["bad_words", "bad_words+temperature+top_p", "beam:bad_words", "greedy:bad_words"]
)
def test_barred_texts_are_not_written(engine: LocalEngine, strategy: str) -> None:
    def run(*words: str, prefix: tuple[int, ...] = ()) -> Watched:
        values = {"bad_words": words}
        request = Request(
            "the quick brown fox", strategy, values=values, seed=3, max_length=40, prefix=prefix
        )
        return watch(engine, request)

    def answer(seen: Watched) -> list[int]:
        return list(seen.finished.answer or seen.ids)

    plain = run()
    ids = answer(plain)
    texts = engine.decode(ids)
    at = next(i for i in range(4, 30) if (texts[i] + texts[i + 1]).isascii() and texts[i].isprintable())
    pair, word = ids[at : at + 2], texts[at] + texts[at + 1]
    assert holds(ids, pair)
    barred = answer(run(word))
    assert not holds(barred, pair)
    assert barred[: at + 1] == ids[: at + 1] or strategy.startswith("beam")
    if not strategy.startswith("beam"):
        # What was kept counts as written: a text may not be completed behind it.
        assert not holds([*ids[: at + 1], *run(word, prefix=tuple(ids[: at + 1])).ids], pair)


def test_a_bias_favours_a_token(engine: LocalEngine) -> None:
    def ids(*biases: str) -> list[int]:
        request = Request("the fox", "logit_bias", values={"logit_bias": biases}, seed=3, max_length=20)
        return watch(engine, request).ids

    assert ids("#5=100") == [5] * 20
    often = ids()[0]
    assert often not in ids(f"#{often}=-100")


def test_a_text_of_no_token_names_itself(engine: LocalEngine) -> None:
    failed = watch(engine, Request("the fox", "bad_words", values={"bad_words": ("x" * 200,)})).failed
    assert failed.message.startswith("bad_words has 'xxx")
    assert failed.message.endswith("a text has 1 to 32.")
    assert (failed.code, failed.field) == ("request", "bad_words")
