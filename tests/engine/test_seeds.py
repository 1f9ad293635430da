"""Seeds of a conversation's turns."""

from __future__ import annotations

from edge_tui.engine import seeds
from edge_tui.engine.port import Message


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
    drawn = {seeds.draw() for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**seeds.BITS for seed in drawn)
