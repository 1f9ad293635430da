"""The numbers recorded of other programs are read rightly, and our own loops agree with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_tui.verify.outcome import Comparison, Context, Outcome
from edge_tui.verify.references.chains import STAGES
from edge_tui.verify.references.recorded import document, sampled, unpack
from edge_tui.verify.toy_models import generate, llama

RECORDED = {name: stage for name, stage in STAGES.items() if stage.recording is not None}


@pytest.mark.parametrize("name", RECORDED)
def test_the_own_loop_leaves_what_the_other_program_left(name: str) -> None:
    stage, comparison = RECORDED[name], Comparison()
    assert stage.recording is not None
    cases = sampled(stage.recording.sampler)
    for case in cases:
        values = {key: float(np.float32(x)) for key, x in stage.recording.values(case.arguments).items()}
        context = Context(output=case.history)
        for at, (z, left) in enumerate(
            zip(map(np.float64, case.before), map(np.float64, case.after), strict=True)
        ):
            found = stage.loop(z, values, context)
            expected = [
                Outcome(left, each.doubt, each.equal, slack=each.slack) for each in found if each.chance
            ]
            ours = found[-1].logits if len(found) == 1 else found[0].logits
            comparison.add(ours, expected, f"{name} {at}", sorts=True)
            learned = ((z, case.chosen[at]),) if case.chosen else ()
            context = replace(context, steps=(*context.steps, *learned))
    assert comparison.faults == []
    assert comparison.cases == sum(len(case.before) for case in cases) > 10


def test_samplers_that_learn_are_recorded_step_by_step() -> None:
    for name in ("mirostat", "mirostat_v2", "adaptive_p"):
        for case in sampled(name):
            assert len(case.before) == len(case.after) == len(case.chosen) == 6
            assert all(after[token] > -np.inf for after, token in zip(case.after, case.chosen, strict=True))


def test_dry_lowers_the_token_that_would_repeat() -> None:
    for case in sampled("dry"):
        lowered = case.after[0] < case.before[0]
        assert set(np.flatnonzero(lowered)) <= set(case.history)
    assert any((case.after[0] < case.before[0]).any() for case in sampled("dry"))


def test_weights_of_the_recorded_searches_are_those_of_our_toy_models() -> None:
    """Among diverse beams some are plain beams: the first group finds what beam search finds here."""
    found = document("transformers")
    assert found["versions"]["transformers"].startswith("4.")
    for case in found["cases"]:
        if case["search"] == "dola":
            assert unpack(case["logits"], np.float32).size == 12 * found["shape"]["vocab_size"]
        if case["search"] == "diverse_beam" and case["options"]["num_beams"] == 4:
            options = case["options"]
            width = options["num_beams"] // options["num_beam_groups"]
            plain = generate(
                llama(case["model"]),
                tuple(case["prompt"]),
                do_sample=False,
                num_beams=width,
                max_new_tokens=case["tokens"],
                length_penalty=options["length_penalty"],
                eos_token_id=case["eos_token_id"],
            )
            answer = plain.sequences[0, len(case["prompt"]) :].tolist()
            answers = [each[: len(answer)] for each in case["answers"]]
            assert answer in answers
