"""DoLa's candidate layers are those of transformers 4.55.4, `_dola_decoding`."""

from __future__ import annotations

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Output
from tests.decoders.driver import param_values, table

DOLA = decoders.find("dola")


def published(half: str, layers: int, tied: bool) -> list[int]:
    """The rule as transformers writes it."""
    start = 0
    if tied:
        start = 2 if layers > 2 else 1 if layers == 2 else 0
    if half == "high":
        return list(range(layers // 2, layers, 2) if layers <= 40 else range(layers - 20, layers, 2))
    if start == layers // 2:
        return [start]
    return list(range(start, layers // 2, 2) if layers <= 40 else range(start, 20, 2))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("half", ["low", "high"])
def test_candidates_are_the_published_layers(half: str, tied: bool) -> None:
    values = param_values(DOLA, dola_layers=half)
    for layers in range(1, 90):
        found = DOLA.needs_of(values, layers, tied).early
        # Of three tied layers the rule of transformers leaves none, and it fails.
        assert list(found) == (published(half, layers, tied) or [1]), layers
        assert all(0 <= layer < layers for layer in found)


def test_the_head_reads_early_layers_with_or_without_the_norm() -> None:
    for form, normed in (("bare", False), ("normed", True)):
        assert DOLA.needs_of(param_values(DOLA, early_head=form), 8, False).early_norm is normed


def test_the_layer_that_differs_most_is_subtracted_in_each_row() -> None:
    """By hand: of two rows the first one's second layer differs more, the second one's first."""
    last = torch.tensor([[0.7, 0.2, 0.06, 0.04]] * 2).log()
    near, far = torch.tensor([0.6, 0.3, 0.05, 0.05]).log(), torch.tensor([0.1, 0.5, 0.2, 0.2]).log()
    early = torch.stack((torch.stack((near, far)), torch.stack((far, near))))
    outs = {"model": Output(last[:, None], early=early[:, None])}
    state = {"output_counts": torch.zeros(2, 4, dtype=torch.int32)}
    score = DOLA.logits(outs, state, table(DOLA, 2))
    wanted = last[0] - far
    wanted[2:] = -torch.inf  # below a tenth of 0.7
    torch.testing.assert_close(score, torch.stack((wanted, wanted)))
