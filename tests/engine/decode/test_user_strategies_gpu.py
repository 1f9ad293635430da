"""Strategies of a user's own on a GPU: captured as ours, and their mistakes told from captured steps too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from edge_tui import decoders
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.events import Finished, Noticed
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.decode.test_user_strategies import (
    COUNTER,
    COUNTS_STEPS,
    MIROSTAT,
    PROPOSER,
    RIGHT,
    decoder_of,
    filter_of,
    learner,
)
from tests.engine.watch import Watched, watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

PROMPT = "the quick brown fox"
LENGTH = 40


@pytest.fixture
def gpu(open_engine: Callable[..., LocalEngine], checkpoint: Path) -> Iterator[LocalEngine]:
    engine = open_engine()
    for role in ("model", "draft"):
        engine.assign(role, ModelSpec(str(checkpoint), precision="float32", device="cuda:0"))
    yield engine
    decoders.load()


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each step of the runs that follow, whether it was replayed."""
    seen: list[bool] = []
    launch = Generation.launch

    def watched(generation: Generation) -> None:
        launch(generation)
        seen.append(generation.captured)

    monkeypatch.setattr(Generation, "launch", watched)
    return seen


def go(
    engine: LocalEngine,
    strategy: str = "mine",
    prefix: tuple[int, ...] = (),
    prefix_logps: tuple[tuple[float, float], ...] = (),
    **values: float,
) -> Watched:
    request = Request(PROMPT, strategy, values, seed=3, max_length=LENGTH)
    return watch(engine, replace(request, prefix=prefix, prefix_logps=prefix_logps))


def read(folder: Path, text: str) -> None:
    (folder / "mine.py").write_text(text)
    decoders.load([folder])
    assert not decoders.current().problems


LATE = 's["n"] += 1; z = z.masked_fill(s["n"] == 20, float("{}"))'


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_broken_numbers_are_noticed_from_captured_steps(
    gpu: LocalEngine, captured: list[bool], tmp_path: Path, number: str
) -> None:
    read(tmp_path, learner(LATE.format(number)))
    for _ in range(2):  # from the kept graphs too
        seen = go(gpu)
        assert "mine.py, line 14: At token 19, Mine.apply gave NaN or +inf" in seen.failed.message
        assert len(seen.ids) == 19
        assert not seen.all(Finished)
        assert captured[18]
    assert len(go(gpu, "greedy").ids) >= 1


def test_an_id_out_of_range_costs_the_run_and_not_the_device(
    gpu: LocalEngine, captured: list[bool], tmp_path: Path
) -> None:
    counter = COUNTER.replace("dtype", "device=env.device, dtype")
    read(tmp_path, decoder_of('s["n"] += 1', 'chosen + 999999 * (s["n"][:, 0] > 19), final', counter))
    seen = go(gpu)
    assert "At token 19, Mine.step gave" in seen.failed.message
    assert captured[18]
    assert torch.ones(3, device="cuda:0").sum().item() == 3
    assert len(go(gpu, "greedy").ids) >= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (learner('s["n"] = s["n"] + 1'), "puts another tensor under s['n']"),
        (learner("z[:, 3] = 0.0"), "Mine.apply writes to z"),
        (learner('self.n = s["n"]'), "Mine.apply puts a tensor into self.n"),
        (
            learner().replace("device=env.device", "device='cpu'"),
            "Mine.init returned n float32 [1, 1] on cpu",
        ),
        (learner('z = z * float("nan")'), "Mine.apply gave NaN or +inf"),
    ],
    ids=("rebound", "written", "self", "device", "nan"),
)
def test_the_first_step_is_inspected(gpu: LocalEngine, tmp_path: Path, text: str, words: str) -> None:
    read(tmp_path, text)
    assert words in go(gpu).failed.message


@pytest.mark.parametrize("text", [filter_of(MIROSTAT), decoder_of()], ids=["filter", "decoder"])
def test_a_strategy_that_is_right_is_captured_and_says_what_eager_says(
    gpu: LocalEngine,
    captured: list[bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    read(tmp_path, text)
    seen = go(gpu)
    assert not [n for n in seen.all(Noticed) if "uncaptured" in n.message]
    assert captured[-1]
    assert go(gpu).ids == seen.ids
    read(tmp_path, text + "\n# saved again")  # another object: nothing of it is kept
    monkeypatch.setattr(Generation, "_try_capture", lambda generation: None)
    assert go(gpu).ids == seen.ids
    assert not captured[-1]


def test_what_learns_goes_on_with_kept_graphs(gpu: LocalEngine, tmp_path: Path) -> None:
    read(tmp_path, filter_of(MIROSTAT))
    whole = go(gpu)
    logps = [[float(x) for x in whole.column(name)[:5]] for name in ("raw_logp", "final_logp")]
    known = tuple((raw, final) for raw, final in zip(*logps, strict=True))
    rest = go(gpu, prefix=tuple(whole.ids[:5]), prefix_logps=known)
    assert rest.column("final_logp")[0] == pytest.approx(whole.column("final_logp")[5], abs=1e-3)
    assert go(gpu).ids == whole.ids


def test_what_learns_outside_observe_is_not_gone_on_from_with_kept_graphs_either(
    gpu: LocalEngine, tmp_path: Path
) -> None:
    read(tmp_path, filter_of(COUNTS_STEPS))
    whole = go(gpu)
    refused = go(gpu, prefix=tuple(whole.ids[:5]))
    assert "run the prompt from its start" in refused.failed.message
    assert not refused.ids
    assert go(gpu).ids == whole.ids


def test_a_neutral_stage_changes_no_draw(gpu: LocalEngine, tmp_path: Path) -> None:
    """Left out on a CPU; here what it makes is left out, in captured steps too."""
    noisy = filter_of("def apply(self, z, p, s, rng):\n    return z.flip(-1)")
    read(tmp_path, noisy)
    neutral, turned = go(gpu, a=0.0).ids, go(gpu, a=0.5).ids
    read(tmp_path, noisy.replace("z.flip(-1)", "z + 0"))
    assert go(gpu, a=0.0).ids == neutral != turned


def test_another_number_of_proposals_takes_another_rig(gpu: LocalEngine, tmp_path: Path) -> None:
    read(tmp_path, PROPOSER.format(propose=RIGHT, step="return took"))
    runs = partial(go, gpu, temperature=0.0)
    whole = go(gpu, "greedy").ids
    assert runs(lookahead=2).ids == whole
    assert runs(lookahead=6).ids == whole
    assert runs(lookahead=2).ids == whole
