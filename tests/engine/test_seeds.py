"""Seeds of a conversation's turns."""

from __future__ import annotations

from edge_tui.engine import seeds
from edge_tui.engine.port import Message

DRAW = seeds.draw
"""The program's own; what a test draws comes from its name."""


def talk(turns: int) -> tuple[Message, ...]:
    """A conversation whose newest prompt has this number."""
    before = [Message("user", "a"), Message("assistant", "b")] * turns
    return (Message("system", "s"), *before, Message("user", "c"))


def test_turns_have_seeds_of_their_own_and_always_the_same_ones() -> None:
    of_seven = [seeds.of_prompt(7, talk(turn)) for turn in range(50)]
    assert of_seven[0] == seeds.of_prompt(7, "c") == 7
    assert of_seven == [seeds.of_turn(7, turn) for turn in range(50)]
    assert of_seven[1] == 1912900389, "written down: another number makes old conversations irreproducible"
    assert all(0 <= seed < 2**seeds.BITS for seed in of_seven)


def test_turns_of_neighbouring_seeds_share_none() -> None:
    derived = [seeds.of_turn(seed, turn) for seed in range(40) for turn in range(1, 40)]
    assert len(set(derived)) == len(derived)
    assert not set(derived) & set(range(100)), "not the seed and a small number"


def test_drawn_seeds_differ_and_are_in_range() -> None:
    drawn = {DRAW() for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**seeds.BITS for seed in drawn)


def test_a_tests_seeds_are_the_same_in_every_run() -> None:
    assert [seeds.draw(), seeds.draw()] == [916408365, 1795098037]
