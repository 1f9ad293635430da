"""Reads chains as users type them: `dry+typical+temperature+min_p`, `beam:dry+min_p`.

The text is the order; nothing is inserted. Alone, a chain is a strategy that draws from what its last stage
leaves. Behind the name of a strategy and a colon it stands around that strategy: penalties act on the model's
logits, other stages on what the strategy makes of them. A stage that stands twice is numbered, `top_k#2`, and
so are its parameters then, `top_k_2`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edge_tui.decoders.core.chain import Link
from edge_tui.decoders.core.decoder import Decoder

if TYPE_CHECKING:
    from edge_tui.decoders.base import Stage

LINKS = "+"
"""Stands between the stages of a chain."""
AROUND = ":"
"""Stands between a strategy and the chain around it."""
MOST_LINKS = 32
"""Stages of the longest chain: every text that a client sends becomes a strategy of its own."""


class ChainError(LookupError):
    """Refuses a chain that cannot be built; the message says what to type."""


def is_chain(text: str) -> bool:
    """Tells whether a strategy's name is a chain or has one."""
    return LINKS in text or AROUND in text


def join(strategy: str, chain: str) -> str:
    """Writes the name of a strategy with a chain around it, or with more stages at the end of its chain."""
    return f"{strategy}{LINKS if is_chain(strategy) else AROUND}{chain}"


def names_in(text: str) -> tuple[str, tuple[str, ...]]:
    """Lists the names in a chain that can be read: the strategy, "" without one, and the stages."""
    strategy, around, chain = text.rpartition(AROUND)
    return strategy if around else "", tuple(word.partition("#")[0] for word in chain.split(LINKS))


def write_chain(stages: Iterable[str]) -> str:
    """Writes a chain; a stage that stands before is numbered.

    Args:
        stages: Names of stages without a number, first to last.
    """
    counts: Counter[str] = Counter()
    words = []
    for name in stages:
        counts[name] += 1
        words.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return LINKS.join(words)


def read_chain(text: str, find: Callable[[str], Stage]) -> tuple[Link, ...]:
    """Reads the links of a chain, first to last.

    Args:
        text: Names of stages with `+` between them.
        find: Finds a stage by its name.

    Raises:
        ChainError: there are too many links, or one is empty, is numbered wrongly, or has no number.
        LookupError: there is no stage of a name, from `find`.
    """
    links: list[Link] = []
    if (count := text.count(LINKS) + 1) > MOST_LINKS:
        raise ChainError(f"The chain has {count} stages; write at most {MOST_LINKS}.")
    for word in text.split(LINKS):
        name, mark, number = word.strip().partition("#")
        if not name:
            raise ChainError(f"The chain {text!r} has an empty place: write stages with one + between them.")
        link = Link(find(name), _number(word, number) if mark else 1)
        count = 1 + sum(each.stage.name == link.stage.name for each in links)
        if link.number != count:
            right = link.stage.name if count == 1 else f"{link.stage.name}#{count}"
            raise ChainError(
                f"The chain {text!r} has {word.strip()!r} in the place of {right!r}: write {right}."
            )
        links.append(link)
    return tuple(links)


def _number(word: str, number: str) -> int:
    """Reads the number of a link.

    Raises:
        ChainError: it is none.
    """
    if not number.isdecimal() or len(number) > 2:
        raise ChainError(f"{word.strip()!r} is no link: a number follows #, as in top_k#2.")
    return int(number)


class ChainStrategy(Decoder):
    """Draws from what a typed chain leaves.

    Args:
        links: First to last.
    """

    def __init__(self, links: tuple[Link, ...]) -> None:
        super().__init__(links)
        self.name = LINKS.join(link.name for link in links)  # type: ignore[misc]  # of this object
        self.title = self.name  # type: ignore[misc]
        self.summary = "Draws from what these stages leave, in this order."  # type: ignore[misc]
