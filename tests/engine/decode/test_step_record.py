"""The record of a step must not share memory with the logits, where the next forward writes."""

from __future__ import annotations

import torch

from edge_tui.decoders.base import Output, Step
from edge_tui.engine.decode.step_record import Sampled, clone_logits_views


def test_views_of_the_logits_are_cloned_and_nothing_else() -> None:
    logits = torch.randn(2, 1, 9)
    outs = {"model": Output(logits[..., :7])}
    final, own = outs["model"].logits[:, -1], torch.randn(2)
    column = logits[:, 0, 1:8]
    step = Step(
        torch.tensor([1, 2]), final, extras={"a": logits[:, 0, 3], "b": own}, candidates={"a": column}
    )
    left = torch.randn(2, 7)
    sampled = Sampled(step, final, (((1, left), (2, logits[:, 0, 1:8])),))
    copies = final.clone(), step.extras["a"].clone(), column.clone()
    cloned = clone_logits_views(sampled, outs)
    found = cloned.step
    logits.zero_()
    assert torch.equal(cloned.raw, copies[0])
    assert cloned.removals[0] is not None
    assert cloned.removals[0][0][1] is left
    assert torch.equal(cloned.removals[0][1][1], copies[2])
    assert torch.equal(found.final, copies[0])
    assert torch.equal(found.extras["a"], copies[1])
    assert torch.equal(found.candidates["a"], copies[2])
    assert found.extras["b"] is own
    assert found.chosen is step.chosen
