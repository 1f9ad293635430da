"""Compares the kernels that keep hidden states with the torch operations that they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from edge_tui.engine.ops import past_states

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
kernels = pytest.importorskip("edge_tui.engine.ops.triton.past_states")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
ROWS, CAPACITY, WIDTH = 3, 12, 21

step = st.tuples(
    st.integers(1, 2),  # new positions
    st.one_of(
        st.none(),
        st.integers(0, ROWS - 1),  # all rows go on from one
        st.lists(st.integers(0, ROWS - 1), min_size=ROWS, max_size=ROWS),
    ),
    st.integers(0, 2),  # positions that are forgotten
)


@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
@example(steps=[(1, [1, 2, 0], 0), (1, [2, 0, 1], 0)], uneven=False)  # crosses over twice
@example(steps=[(1, 1, 2), (1, [2, 0, 1], 0)], uneven=False)  # forgets behind a winner
@given(steps=st.lists(step, min_size=3, max_size=4), uneven=st.booleans())
def test_rows_hold_the_states_of_their_parents(steps: list[tuple[int, object, int]], uneven: bool) -> None:
    """After any order of storing, following a winner, crossing over and forgetting."""
    generator = torch.Generator().manual_seed(len(steps))
    expected = torch.zeros(ROWS, CAPACITY, WIDTH, device="cpu")
    found = expected.clone().to(DEVICE)
    unused, shared = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64, device=DEVICE)
    length = torch.tensor([2, 1, 2] if uneven else [2, 2, 2])
    for k, parents, forgotten in [(1, None, 0), *steps]:
        length = length + k
        new = torch.randn(ROWS * k, WIDTH, generator=generator)
        past_states.append(expected, new, length, k, unused)
        kernels.append(found, new.to(DEVICE), length.to(DEVICE), k, shared)
        if parents is not None:
            parent = torch.tensor([parents] * ROWS if isinstance(parents, int) else parents)
            past_states.reorder(expected, parent, length, unused, CAPACITY)
            kernels.reorder(found, parent.to(DEVICE), length.to(DEVICE), shared)
            length = length[parent]
        for row, end in enumerate(length.tolist()):
            assert torch.equal(found[row, :end].cpu(), expected[row, :end])
        length = (length - forgotten).clamp(min=1)


def test_only_what_differs_is_moved() -> None:
    """Behind a winner all rows are the same, so at the next one the positions before are left alone."""
    states = torch.randn(ROWS, CAPACITY, WIDTH).to(DEVICE)
    length, winner = torch.tensor([3] * ROWS, device=DEVICE), torch.tensor([1] * ROWS, device=DEVICE)
    shared = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    kernels.reorder(states, winner, length, shared)
    states[2, :3] = 7.0  # nobody does; it shows what is written
    new = torch.randn(ROWS, WIDTH).to(DEVICE)
    kernels.append(states, new, length + 1, 1, shared)
    kernels.reorder(states, winner, length + 1, shared)
    assert bool((states[2, :3] == 7.0).all())
    assert torch.equal(states[:, 3], new[1].expand(ROWS, -1))


@pytest.mark.gpu
@pytest.mark.parametrize("width", [896, 3584])
def test_a_long_past_is_moved_whole(width: int) -> None:
    states = torch.randn(4, 2_000, width, device="cuda", dtype=torch.bfloat16)
    before, parent = states.clone(), torch.tensor([3, 0, 0, 1], device="cuda")
    length = torch.full((4,), 1_900, device="cuda")
    kernels.reorder(states, parent, length, torch.zeros(2, dtype=torch.int64, device="cuda"))
    assert torch.equal(states[:, :1_900], before[parent][:, :1_900])
