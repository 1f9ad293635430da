"""Stores sequences that share beginnings as a tree: each node has the number of the one before it."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = -1
"""Parent of the first nodes: the prompt."""


class Tree:
    """Stores nodes in the order of arrival, 12 bytes each.

    Attributes:
        parent: Number of the node before, or `ROOT`.
        row: The row that a node was decoded in.
        depth: Count of nodes before it.
    """

    def __init__(self) -> None:
        self.parent = array("i")
        self.row = array("i")
        self.depth = array("i")

    def __len__(self) -> int:
        return len(self.parent)

    def add(self, parent: int, row: int) -> int:
        """Adds a node; returns its number."""
        self.parent.append(parent)
        self.row.append(row)
        self.depth.append(self.length(parent))
        return len(self.parent) - 1

    def add_line(self, n: int) -> range:
        """Adds `n` nodes, each continuing the one before, where all of the tree is one line."""
        numbers = range(len(self), len(self) + n)
        self.parent.extend(range(numbers.start - 1, numbers.stop - 1))
        self.row.extend([0] * n)
        self.depth.extend(numbers)
        return numbers

    def length(self, leaf: int) -> int:
        """Counts nodes of the sequence that ends here."""
        return self.depth[leaf] + 1 if leaf >= 0 else 0

    def branch(self, leaf: int, start: int = 0) -> list[int]:
        """Lists the sequence that ends at `leaf`, from depth `start` on."""
        branch: list[int] = []
        while leaf >= 0 and self.depth[leaf] >= start:
            branch.append(leaf)
            leaf = self.parent[leaf]
        branch.reverse()
        return branch

    def at(self, leaf: int, length: int) -> int:
        """Finds the node that ends the first `length` nodes of the sequence, or `ROOT`."""
        while self.length(leaf) > length:
            leaf = self.parent[leaf]
        return leaf

    def on(self, path: array[int], leaf: int) -> int:
        """Finds the last node of the sequence that is also on `path`, or `ROOT`."""
        leaf = self.at(leaf, len(path))
        while leaf >= 0 and path[self.depth[leaf]] != leaf:
            leaf = self.parent[leaf]
        return leaf

    def common(self, leaves: Iterable[int]) -> int:
        """Counts nodes that the sequences have in common at their beginning."""
        nodes = set(leaves)
        length = min(map(self.length, nodes))
        nodes = {self.at(node, length) for node in nodes}
        while len(nodes) > 1:
            length -= 1
            nodes = {self.parent[node] for node in nodes}
        return length
