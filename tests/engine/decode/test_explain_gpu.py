"""Explanations on a GPU: the run's own numbers, or a tie or an edge where another token is taken.

A run chooses by fused kernels in captured graphs, an explanation by torch operations. Where both read the
same keys and values they may part by the last digits of a sum alone; where the text is read anew in 16 bits,
by what the precision allows, and the sentence says which of the two it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge_tui.engine.decode.explain import COARSE_EPSILON, EPSILON
from edge_tui.engine.decode.reason import ROUNDING
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Precision, Request
from tests.engine.decode.explaining import add_up, ask, question_at
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import Watched, watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    pytest.mark.timeout(1200),
]

LENGTH = 120
STRATEGIES = (
    *("top_p", "top_k", "min_p", "typical", "greedy", "mirostat", "contrastive", "cfg"),
    "dry+typical+temperature+min_p",
)
SEPARATORS = ("tie within rounding", "at the edge of")
"""What a sentence says where run and explanation take different tokens of one and the same step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, endless = tmp_path_factory.mktemp("models"), {"eos_token_id": TOKENS + 9}
    for role, std in (("model", 0.2), ("amateur", 0.198)):
        make_checkpoint(folder / role, context=512, std=std, seed=9, generation=endless, extra=endless)
        (folder / role / "tokenizer_config.json").write_text("{}")  # it names an end of its own
    return folder


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def gpu(open_engine: Callable[..., LocalEngine], folder: Path, precision: Precision) -> LocalEngine:
    engine = open_engine()
    for role in ("model", "expert", "amateur"):
        path = folder / ("amateur" if role == "amateur" else "model")
        engine.assign(role, ModelSpec(str(path), precision, "cuda:0"))
    return engine


def explained(engine: LocalEngine, request: Request, run: Watched) -> list[Explanation]:
    """Explains every token of a run."""
    found = []
    for index in range(len(run.ids)):
        why = ask(engine, question_at(request, run, index))
        assert isinstance(why, Explanation), why
        assert why.token == run.ids[index]
        found.append(why)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_run_and_explanation_part_at_ties_and_edges_alone(
    strategy: str, gpu: LocalEngine, precision: Precision
) -> None:
    request = Request("", strategy, seed=7, ids=tuple(range(40, 72)), max_length=LENGTH)
    run = watch(gpu, request, timeout=600)
    assert len(run.ids) == LENGTH
    own = explained(gpu, request, run)
    watch(gpu, Request("", "greedy", ids=(7,), max_length=1), timeout=600)  # its context takes the place
    anew = explained(gpu, request, run)
    assert all(why.epsilon == 0 for why in own)
    bound = EPSILON.get(precision, COARSE_EPSILON)
    for index, why in enumerate(own):
        margin, tolerance = run.column("margin")[index], bound if index == 0 else ROUNDING
        check(why, margin, tolerance)
    for index, why in enumerate(anew):
        check(why, run.column("margin")[index], bound)
    parted = [sum(why.token != why.winner for why in each) for each in (own, anew)]
    print(f"{strategy} {precision}: of {LENGTH}, {parted[0]} parted by the own numbers, {parted[1]} anew")


def check(why: Explanation, margin: float, tolerance: float) -> None:
    """Holds one explanation to its sums, or to a tie that the margin allows, or to an edge."""
    if why.token == why.winner:
        add_up(why)
        return
    assert any(each in why.sentence for each in SEPARATORS), why.sentence
    assert "the run's token stands" in why.note
    if SEPARATORS[0] in why.sentence:
        assert margin <= 2 * tolerance, "a margin of the run beyond what both sums may be off"
