"""Models of one strategy on two devices: tokens go there, logits come back, and nothing else changes.

The second device is a name: torch takes "cpu:0" for another device than "cpu", and copies between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_tui.engine.events import Loaded, Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models import loader, memory_estimate
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import Watched, watch
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_tui.engine.events import Event

ELSEWHERE = "cpu:0"
ROLES = ("model", "expert", "amateur", "draft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    endless = {"eos_token_id": TOKENS + 9}
    for seed, role in enumerate(ROLES):
        make_checkpoint(folder / role, context=512, seed=seed, generation=endless, extra=endless)
    return folder


@pytest.fixture(params=["cpu", ELSEWHERE])
def devices(request: pytest.FixtureRequest) -> dict[str, str]:
    """Names each role's device: that of the main models, and the other one for amateur and draft."""
    other = {"cpu": ELSEWHERE, ELSEWHERE: "cpu"}[request.param]
    return dict(zip(ROLES, (request.param, request.param, other, other), strict=True))


@pytest.fixture
def engine(folder: Path, devices: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    monkeypatch.setattr(loader, "resolve_device", lambda device: device)
    specs = {role: ModelSpec(str(folder / role), "float32", device) for role, device in devices.items()}
    engine = LocalEngine(specs)
    yield engine
    assert engine.close(60.0)


@pytest.mark.parametrize("strategy", ["contrastive", "speculative", "dexperts"])
def test_a_run_is_that_of_one_device(strategy: str, engine: LocalEngine, folder: Path) -> None:
    together = LocalEngine({role: ModelSpec(str(folder / role), "float32", "cpu") for role in ROLES})
    runs: list[Watched] = []
    try:
        for samples in (1, 1 if strategy == "speculative" else 2):
            request = Request(
                "", strategy, {"temperature": 0.9}, ids=range(30, 50), seed=3, max_length=12, samples=samples
            )
            runs = [watch(each, request) for each in (engine, together)]
            got, wanted = runs
            for row in range(samples):
                assert got.column("id", row) == wanted.column("id", row)
                difference = np.array(got.column("final_logp", row)) - np.array(
                    wanted.column("final_logp", row)
                )
                assert np.abs(difference).max() < 1e-4
    finally:
        assert together.close(60.0)


def test_each_device_tells_what_leaves_it(engine: LocalEngine) -> None:
    """A model that goes takes its contexts along; the other device's stay."""
    request = Request("", "contrastive", ids=range(30, 50), seed=3, max_length=4)
    loaded = {event.role: event.device for event in watch(engine, request).all(Loaded)}
    assert set(loaded.values()) == {"cpu", ELSEWHERE}
    events: list[Event] = []
    engine.unload("amateur")
    until(lambda: events.extend(engine.poll()) or any(isinstance(each, Unloaded) for each in events), 10.0)
    assert [each.roles for each in events if isinstance(each, Unloaded)] == [("amateur",)]
    assert watch(engine, request).started.reused_tokens == 20


def test_a_device_without_room_for_the_second_model_is_named_with_the_way_out(
    engine: LocalEngine, devices: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = devices["amateur"]
    monkeypatch.setattr(memory_estimate, "free_memory", lambda at: 5_000 if at == elsewhere else 10**10)
    failed = watch(engine, Request("", "contrastive", ids=range(30, 50), seed=3, max_length=4)).failed
    assert f"on {elsewhere} (" in failed.message
    assert failed.message.endswith("choose a smaller precision, a shorter context or another device.")
    assert failed.message.count(". ") == 0, "one sentence"
    assert len(watch(engine, Request("", "greedy", ids=range(30, 50), max_length=4)).ids) == 4
