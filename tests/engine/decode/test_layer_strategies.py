"""DoLa and contrastive search on the engine write what transformers 4.55.4 was recorded to write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.engine.events import Failed
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from edge_tui.verify.outcome import Float64
from edge_tui.verify.references.contrastive_search import contrastive_search
from edge_tui.verify.references.kinds import RunReference
from edge_tui.verify.references.recorded import document
from edge_tui.verify.toy_models import llama
from edge_tui.verify.verify import REFERENCES
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import VARIANTS, reference
from tests.engine.random_checkpoints import TOKENS, save_tokenizer
from tests.engine.watch import Watched, watch


def cases(strategy: str) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """The recorded runs of a strategy, with our values for their options."""
    reference: Any = REFERENCES[strategy]
    runs = reference if isinstance(reference, RunReference) else reference.runs
    found = [case for case in document("transformers")["cases"] if case["search"] == runs.search]
    return [(case, dict(values)) for case in found if (values := runs.values(case["options"])) is not None]


def make_model(folder: Path, seed: int, eos: int | None = None) -> Path:
    llama(seed).save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    if eos is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [make_model(tmp_path_factory.mktemp("toy") / str(seed), seed) for seed in range(3)]


def answer(seen: Watched) -> list[int]:
    assert not seen.all(Failed)
    return list(seen.finished.answer or seen.ids)


@pytest.mark.parametrize("strategy", ["dola", "contrastive_search"])
def test_the_engine_writes_the_recorded_answers(
    open_engine: Callable[..., LocalEngine], models: list[Path], strategy: str
) -> None:
    engines = [open_engine(model=path) for path in models]
    certain = {param.name: 0.0 for param in decoders.find(strategy).params if param.name == "temperature"}
    for case, values in cases(strategy):
        prompt, wanted = tuple(case["prompt"]), case["answers"][0]
        engine = engines[case["model"]]
        whole = Request("", strategy, values | certain, ids=prompt, max_length=case["tokens"])
        assert answer(watch(engine, whole)) == wanted
        # Some of the answer as a prompt: its states are there already, or read again.
        longer = Request("", strategy, values | certain, ids=(*prompt, *wanted[:5]), max_length=7)
        seen = watch(engine, longer)
        assert answer(seen) == wanted[5:]
        assert seen.finished.new_tokens == 7


def test_contrastive_search_compares_what_the_head_reads(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    """On OPT-350M, whose last state is narrower than its layers', as the own loop over transformers does."""
    kind, own = VARIANTS["opt 350M"]
    path = make_tiny(tmp_path / "m", kind, **own, vocab_size=TOKENS)
    save_tokenizer(path)
    module, prompt, values = reference(path), (40, 61, 52, 73), {"penalty_alpha": 0.6, "num_candidates": 4}
    v = {param.name: float(param.default) for param in decoders.find("contrastive_search").params} | values

    @torch.no_grad()
    def read(ids: Sequence[int]) -> tuple[Float64, Float64]:
        found = module(torch.tensor([list(ids)]), use_cache=False, output_hidden_states=True)
        return found.logits[0, -1].double().numpy(), found.hidden_states[-1][0].double().numpy()

    wanted, distance = contrastive_search(read, prompt, 16, v)
    assert distance > 1e-5, "rounding would decide"
    request = Request("", "contrastive_search", values, ids=prompt, max_length=16)
    assert answer(watch(open_engine(model=path), request)) == list(wanted)


def test_contrastive_search_ends_with_the_winner_that_ends_a_text(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    case, values = cases("contrastive_search")[0]
    wanted = case["answers"][0]
    engine = open_engine(model=make_model(tmp_path / "m", case["model"], eos=wanted[4]))
    request = Request("", "contrastive_search", values, ids=tuple(case["prompt"]), max_length=12)
    seen = watch(engine, request)
    assert answer(seen) == wanted[: wanted.index(wanted[4]) + 1]
    assert seen.finished.reason == "done"


def test_one_candidate_is_greedy_search(open_engine: Callable[..., LocalEngine], models: list[Path]) -> None:
    engine = open_engine(model=models[0])
    prompt = tuple(cases("dola")[0][0]["prompt"])
    greedy = answer(watch(engine, Request("", "greedy", ids=prompt, max_length=10)))
    for values in ({"num_candidates": 1}, {"penalty_alpha": 0.0}):
        request = Request("", "contrastive_search", values, ids=prompt, max_length=10)
        assert answer(watch(engine, request)) == greedy


def test_filters_leave_fewer_candidates_than_rows(
    open_engine: Callable[..., LocalEngine], models: list[Path]
) -> None:
    """What a filter removes never wins, however new it is."""
    prompt = tuple(cases("dola")[0][0]["prompt"])
    engine = open_engine(model=models[0])
    request = Request("", "contrastive_search:top_k", {"top_k": 1}, ids=prompt, max_length=10)
    greedy = answer(watch(engine, Request("", "greedy", ids=prompt, max_length=10)))
    assert answer(watch(engine, request)) == greedy
