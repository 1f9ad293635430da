"""An explanation waits for a GPU a few times, not for each number, and computes there what a CPU does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import inf
from typing import Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.core import kernels
from edge_tui.decoders.core.kernels import Kernels
from edge_tui.decoders.core.random import Rng, draw_and_margin, key_of
from edge_tui.engine.decode.explain import explain_token
from edge_tui.engine.decode.known_luck import KnownLuck
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.models.manager import ModelManager
from edge_tui.engine.port import ModelSpec, Question
from tests.engine.decode.explained_runs import CHAINS, PROMPT, request_of
from tests.engine.decode.far_device import DEVICE, FarDevice, FarTensor
from tests.engine.random_checkpoints import TOKENS, make_checkpoint

ROLES = {"model": 0.2, "expert": 0.2, "amateur": 0.198, "draft": 0.15}
MOST = 8
"""Times that an explanation may wait for the device, those of the forward included."""
LAUNCHES = {"sample": 660, "search": 700, "propose": 900}
"""Operations that it may launch, by the kind of a strategy, those of a forward of two layers included. Each
takes the host 10 to 20 µs, and together they are nearly all of the time."""
KEPT = 70
"""Tokens before the one that is asked about: a learner has a copy of its state at 64."""


def load_far(*arguments: Any) -> LoadedModel:
    """Loads a model that says it is on the far device, where no fused call reads it."""
    loaded = load(*arguments)
    model: Any = loaded.model
    model.fused, model.info = None, replace(model.info, device=DEVICE)
    return loaded


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelManager, ModelManager]:
    """Models on the CPU, and the same on the far device."""
    folder, endless = tmp_path_factory.mktemp("models"), {"eos_token_id": TOKENS + 9}
    specs = {}
    for role, std in ROLES.items():
        make_checkpoint(folder / role, context=256, std=std, seed=9, generation=endless, extra=endless)
        specs[role] = ModelSpec(str(folder / role), "float32", "cpu")
    made = tuple(ModelManager(lambda _: None, loader, specs) for loader in (load, load_far))
    for manager in made:
        for role in ROLES:
            manager.get(role, lambda: False)
    return made  # type: ignore[return-value]


def explain(manager: ModelManager, question: Question, cache: PrefixCache | None = None) -> Explanation:
    """Explains as the engine does, without one."""
    return explain_token(question, manager, (), PrefixCache() if cache is None else cache, lambda: False)


@pytest.mark.parametrize("name", [*(each.name for each in decoders.strategies()), *CHAINS])
def test_an_explanation_waits_a_few_times(name: str, managers: tuple[ModelManager, ModelManager]) -> None:
    near, far = managers
    prefix = tuple(60 + i % 100 for i in range(KEPT))
    logps = tuple((-2.0, -1.5) for _ in prefix)
    request = replace(request_of(name, KEPT + 8), prefix=prefix, prefix_logps=logps)
    question = Question(request, 77, ids=(3, 5))
    question = replace(question, token=explain(near, question).winner)
    here, cache, device = explain(near, question), PrefixCache(), FarDevice()
    with device.opened():
        explain(far, question, cache)
        device.clear()
        there = explain(far, question, cache)
    assert sum(device.waits.values()) <= MOST, device.waits
    assert device.launches <= LAUNCHES[decoders.find(name).kind]
    assert_same(here, there)


@pytest.mark.parametrize(
    "name", ["greedy", "top_p", "mirostat", "contrastive", "speculative", "beam", *CHAINS]
)
def test_an_explanation_launches_one_kernel(name: str, managers: tuple[ModelManager, ModelManager]) -> None:
    """The noise of all tokens, once: any other kernel would be compiled while somebody waits."""
    launched: list[str] = []

    def noise(
        kind: str, ids: torch.Tensor, key: torch.Tensor, step: torch.Tensor, offset: int
    ) -> torch.Tensor:
        launched.append(f"{kind} {ids.shape[1]}")
        with kernels.torch_only():
            return Rng(key, step, offset=offset).gumbel(ids)

    def unknown(*_: object) -> Any:
        raise AssertionError("a kernel that no run has compiled")

    others = {field.name: unknown for field in fields(Kernels)}
    question = Question(replace(request_of(name, 8), prefix=(60, 61), prefix_logps=((-2.0, -1.5),) * 2), 77)
    kernels.provide(DEVICE, Kernels(**{**others, "noise": noise}))
    try:
        with FarDevice().opened():
            explain(managers[1], question)
    finally:
        kernels.provide(DEVICE, None)
    assert launched == [f"gumbel {TOKENS}"]


def assert_same(here: Explanation, there: Explanation) -> None:
    """Compares explanations of one step that were computed in two ways."""
    assert (here.token, here.winner) == (there.token, there.winner)
    assert (here.sentence, here.facts, here.others) == (there.sentence, there.facts, there.others)
    assert (here.candidate_count, here.drawn) == (there.candidate_count, there.drawn)
    assert here.margin == pytest.approx(there.margin, abs=1e-4, nan_ok=True)
    assert [(each.name, each.kept, each.removed, each.criterion) for each in here.stages] == [
        (each.name, each.kept, each.removed, each.criterion) for each in there.stages
    ]
    found = {each.id: each for each in there.candidates}
    for each in here.candidates:
        other = found[each.id]
        assert (each.rank, each.removing_stage) == (other.rank, other.removing_stage)
        for a, b in ((each.sum, other.sum), (each.luck, other.luck), (each.raw_logp, other.raw_logp)):
            assert a == b == -inf or a == pytest.approx(b, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("width", [7, 20, 30])
def test_noise_that_is_known_draws_what_that_of_each_draw_does(width: int) -> None:
    """Of all candidates, of some, and of more than it was computed for, as a strategy of the user's may."""
    rng, z = Rng(torch.tensor([key_of(3)] * 2), torch.tensor([5])), torch.randn(2, width)
    drawn, expected = draw_and_margin(z, KnownLuck(rng, 20)), draw_and_margin(z, rng)
    assert all(map(torch.equal, drawn, expected))


def test_a_question_waits_no_more_the_longer_the_text(managers: tuple[ModelManager, ModelManager]) -> None:
    """A learner's kept tokens are told to it on the host."""
    device, waits, launches = FarDevice(), [], []
    for length in (20, 60):
        prefix = PROMPT[:10] * (length // 10)
        request = replace(
            request_of("dry+mirostat", 100), prefix=prefix, prefix_logps=((-2.0, -1.0),) * length
        )
        with device.opened():
            device.clear()
            explain(managers[1], Question(request, 77))
        waits.append(sum(device.waits.values()))
        launches.append(device.launches)
    assert waits[0] == waits[1]
    assert launches[0] == launches[1]


@pytest.mark.parametrize(
    ("ask", "waits"),
    [
        (lambda far: far.sum().item(), 1),
        (lambda far: bool(far[0] > 0), 1),
        (lambda far: far.tolist(), 1),
        (lambda far: far.cpu(), 1),
        (lambda far: far.equal(far), 1),
        (lambda far: (far > 0).nonzero(), 1),
        (lambda far: far[far > 0], 1),
        (lambda _: torch.tensor([1.0], device=DEVICE), 1),
        (lambda _: torch.ones(1).to(DEVICE), 1),
        (lambda far: far.copy_(torch.ones(3)), 1),
        (lambda far: far.copy_(torch.ones(3), non_blocking=True), 0),
        (lambda _: torch.ones(1).to(DEVICE, non_blocking=True), 0),
        (lambda far: far[far.argsort()] + far.softmax(-1), 0),
    ],
)
def test_what_the_host_waits_for_is_counted(ask: Callable[[torch.Tensor], object], waits: int) -> None:
    device = FarDevice()
    with device.opened():
        far = FarTensor(torch.tensor([1.0, 2.0, 3.0]))
        device.clear()
        ask(far)
    assert sum(device.waits.values()) == waits
