"""Compares runs of searches, and of strategies that read layers, on toy models with references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import RandomState

from edge_tui.decoders.base import Choice, Decoder, Output, Records, names_of, numbers
from edge_tui.verify import driver
from edge_tui.verify.distributions import values
from edge_tui.verify.outcome import TOLERANCE, Comparison, Float64, outcome, words
from edge_tui.verify.references.kinds import RunReference, Values
from edge_tui.verify.references.recorded import document, unpack
from edge_tui.verify.toy_models import VOCAB, llama

if TYPE_CHECKING:
    import torch

_MODELS = 3
_TOKENS = 8
_TIE = 1e-5
"""A decision that falls by less is rounding's."""


def compare_recorded_runs(decoder: Decoder, reference: RunReference) -> Comparison:
    """Compares the answers of a search, or each step's logits after the tokens that were taken."""
    comparison = Comparison()
    for case in document("transformers")["cases"]:
        given = reference.values(case["options"]) if case["search"] == reference.search else None
        if given is None:
            continue
        v = {**driver.defaults(decoder), **given}
        name = f"model {case['model']} ({words(v)})"
        if "logits" in case:
            _compare_steps(decoder, comparison, case, v, name)
            continue
        ends = [case["eos_token_id"]] if "eos_token_id" in case else []
        answers = _search(decoder, llama(case["model"]), case["prompt"], case["tokens"], v, ends)
        _compare_answers(comparison, case, answers, name)
    return comparison


def compare_loop_runs(decoder: Decoder, reference: RunReference, runs: int, seed: int = 0) -> Comparison:
    """Compares answers under random values with those of the own loop."""
    comparison = Comparison()
    for number in range(seed, seed + runs if reference.loop is not None else seed):
        assert reference.loop is not None
        random = RandomState(number)
        v = values(random, numbers(decoder.params))
        prompt, model = random.randint(0, VOCAB, random.randint(1, 6)).tolist(), llama(number % _MODELS)
        expected, distance = reference.loop(_reader(model), prompt, _TOKENS, v)
        found = _search(decoder, model, prompt, _TOKENS, v)[0].tokens
        comparison.cases += 1
        if found == tuple(expected):
            continue
        if distance < _TIE:
            comparison.ties += 1
        else:
            comparison.faults.append(f"run {number} ({words(v)}): the answer is {found}, must be {expected}.")
    return comparison


def _reader(model: Any) -> Callable[[Sequence[int]], tuple[Float64, Float64]]:
    """Gives a function from ids to the last position's logits and the last layer's states."""
    import torch

    @torch.no_grad()
    def read(ids: Sequence[int]) -> tuple[Float64, Float64]:
        found = model(torch.tensor([list(ids)]), use_cache=False, output_hidden_states=True)
        states: Float64 = found.hidden_states[-1][0].double().numpy()
        logits: Float64 = found.logits[0, -1].double().numpy()
        return logits, states

    return read


def _compare_answers(
    comparison: Comparison, case: Mapping[str, Any], found: Sequence[Choice], name: str
) -> None:
    """Compares the answers of a search with those recorded, and their scores where there are some."""
    comparison.cases += 1
    answers, scores = case["answers"], case.get("scores", [])
    for choice, answer in zip(found, answers, strict=False):
        tokens = list(choice.tokens)
        if tokens != answer[: len(tokens)] or any(answer[len(tokens) :]):  # padded with 0
            comparison.faults.append(f"{name}: the answer is {tokens}, recorded is {answer}.")
    for choice, score in zip(found, scores, strict=False):
        gap = abs(choice.score - score) / max(1.0, abs(score))
        comparison.difference = max(comparison.difference, gap)
        if gap > TOLERANCE:
            comparison.faults.append(f"{name}: the score is {choice.score:.6g}, recorded is {score:.6g}.")
    if scores and len(found) != len(answers):
        comparison.faults.append(f"{name}: there are {len(found)} answers, recorded are {len(answers)}.")


def _compare_steps(
    decoder: Decoder, comparison: Comparison, case: Mapping[str, Any], v: Values, name: str
) -> None:
    """Compares the final logits after each beginning of a recorded answer."""
    import torch

    prompt, tokens = case["prompt"], case["answers"][0]
    recorded = unpack(case["logits"], np.float32).reshape(len(tokens), VOCAB).astype(np.float64)
    for at in range(len(tokens)):
        ids = np.array([prompt + tokens[:at]], dtype=np.int64)
        state = driver.start(decoder, driver.environment(decoder, ids, VOCAB, v, prefix=at))
        outs = {decoder.streams[0].name: read_layers(decoder, llama(case["model"]), torch.from_numpy(ids), v)}
        step = decoder.step(outs, state, driver.table([v], 1), driver.random_numbers(1, 0, at))
        comparison.add(
            step.final.numpy()[0], [outcome(recorded[at], recorded[at] > -np.inf)], f"{name} step {at}"
        )


def _search(
    decoder: Decoder, model: Any, prompt: Sequence[int], tokens: int, v: Values, eos: Sequence[int] = ()
) -> list[Choice]:
    """Decodes answers, best first, every row read again from its start."""
    import torch

    rows, name = decoder.rows(v), decoder.streams[0].name
    ids = torch.tensor([list(prompt)]).repeat(rows, 1)
    env = driver.environment(decoder, ids.numpy(), VOCAB, v, most=tokens, eos=eos)
    state, params, rng = driver.start(decoder, env), driver.table([v], rows), driver.random_numbers(rows, 0)
    steps = []
    for _ in range(tokens + decoder.lag):
        step = decoder.step({name: read_layers(decoder, model, ids, v)}, state, params, rng)
        assert step.parent is not None, "a search moves rows"
        ids = torch.cat((ids[step.parent], step.chosen[:, None]), 1)
        rng.step += 1
        steps.append(step)
        if step.done is not None and bool(step.done.all()):
            break
    extras = {name: [step.extras[name].tolist() for step in steps] for name in names_of(decoder.columns)}
    parents = [step.parent.tolist() for step in steps if step.parent is not None]
    return decoder.ranked(Records([s.chosen.tolist() for s in steps], parents, extras, v))


def read_layers(decoder: Decoder, model: Any, ids: torch.Tensor, v: Values) -> Output:
    """Runs a toy model over ids int64 `[R, T]` without a cache; what the strategy needs of the last one."""
    import torch

    with torch.no_grad():
        found = model(ids, use_cache=False, output_hidden_states=True)
        states = found.hidden_states
        needs = decoder.needs_of(v, len(states) - 1, False)
        tensors = {}
        if needs.hidden:
            tensors["hidden"] = torch.stack([states[layer][:, -1:] for layer in needs.hidden], 2)
        if needs.early:
            early = torch.stack([states[layer][:, -1:] for layer in needs.early], 2)
            tensors["early"] = model.lm_head(model.model.norm(early) if needs.early_norm else early)
        if needs.past:
            tensors["past"] = states[-1]
            tensors["past_length"] = torch.full((len(ids),), ids.shape[1])
    return Output(found.logits[:, -1:].float(), **tensors)
