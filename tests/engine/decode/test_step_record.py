"""What is recorded of a step must not lie where the next forward writes."""

from __future__ import annotations

import torch

from edge_tui.decoders.base import Output, Step
from edge_tui.engine.decode.step_record import apart


def test_what_lies_among_the_logits_is_copied_and_nothing_else() -> None:
    logits = torch.randn(2, 1, 9)
    outs = {"model": Output(logits[..., :7])}
    final, own = outs["model"].logits[:, -1], torch.randn(2)
    column = logits[:, 0, 1:8]
    took = Step(
        torch.tensor([1, 2]), final, extras={"a": logits[:, 0, 3], "b": own}, candidates={"a": column}
    )
    kept = final.clone(), took.extras["a"].clone(), column.clone()
    found = apart(took, outs)
    logits.zero_()
    assert torch.equal(found.final, kept[0])
    assert torch.equal(found.extras["a"], kept[1])
    assert torch.equal(found.candidates["a"], kept[2])
    assert found.extras["b"] is own
    assert found.chosen is took.chosen
