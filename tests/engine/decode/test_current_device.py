"""Whoever computes enters the device of its tensors, and nothing but copies meets tensors of two devices.

No GPU is needed. The second device is the far one of `far_device`, whose numbers lie on the CPU; what makes
a device current is a recorder in place of `torch.cuda.device`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.decode import step_runner
from edge_tui.engine.decode.away_forward import AwayForward
from edge_tui.engine.decode.explain import explain_token
from edge_tui.engine.decode.param_table import Run
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.run import run_request
from edge_tui.engine.events import Event, Loaded
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.models.manager import ModelManager
from edge_tui.engine.ops import cuda_capture, current_device
from edge_tui.engine.ops.current_device import entered
from edge_tui.engine.port import ModelSpec, Question, Request
from tests.engine.decode.far_device import ALLOCATIONS, DEVICE, FarDevice, FarTensor
from tests.engine.decode.test_explain_waits import load_far
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import Watched

ROLES = ("model", "expert", "amateur", "draft")
COPIES = {"_to_copy", "copy_", "to"}


class Recorder:
    """Knows which device is current, in place of CUDA."""

    def __init__(self) -> None:
        self.stack = ["none"]

    @contextmanager
    def enter(self, device: str) -> Iterator[None]:
        self.stack.append(device)
        yield
        self.stack.pop()

    @property
    def current(self) -> str:
        return self.stack[-1]


class StrictDevice(FarDevice):
    """Notes operations that a GPU would refuse, or launch on another one.

    Attributes:
        mixed: Operations on tensors of both devices, copies apart.
        strayed: Operations on far tensors while another device was current.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        gc.collect()
        tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
        self.mixed: set[str] = set()
        self.strayed: set[str] = set()
        self._recorder = recorder
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        """Those of loaded models lie on the CPU, though a model says that it is far."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")  # noqa: SLF001 - torch has no public name for it
        tensors = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, torch.Tensor)]
        far = [each for each in tensors if isinstance(each, FarTensor)]
        near = [each for each in tensors if not isinstance(each, FarTensor) and each.dim()]
        if far and name not in COPIES | ALLOCATIONS:
            if any(each.untyped_storage().data_ptr() not in self._weights for each in near):
                self.mixed.add(name)
            if self._recorder.current != DEVICE:
                self.strayed.add(name)
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for kind in ("cpu", DEVICE):
        monkeypatch.setitem(current_device.ENTER, kind, recorder.enter)
    return recorder


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    folder, endless = tmp_path_factory.mktemp("models"), {"eos_token_id": TOKENS + 9}
    for seed, role in enumerate(ROLES):
        make_checkpoint(folder / role, seed=seed, generation=endless, extra=endless)
    return {role: ModelSpec(str(folder / role), "float32", "cpu") for role in ROLES}


def manager_of(specs: dict[str, ModelSpec], *far: str) -> ModelManager:
    """Makes a manager that loads the models of some roles onto the far device."""
    names = {specs[role].name for role in far}

    def load_one(spec: ModelSpec, *arguments: Any) -> LoadedModel:
        return (load_far if spec.name in names else load)(spec, *arguments)

    return ModelManager(lambda _: None, load_one, specs)


def run(manager: ModelManager, request: Request) -> Watched:
    events: list[Event] = []
    for _ in run_request(Run(1, request), manager, PrefixCache(), events.append, lambda: False):
        pass
    return Watched(1, events)


@pytest.mark.parametrize(
    ("strategy", "samples"),
    [("contrastive", 1), ("contrastive", 2), ("dexperts", 1), ("speculative", 1)],
)
def test_only_tokens_and_logits_go_between_two_devices(
    strategy: str,
    samples: int,
    specs: dict[str, ModelSpec],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(
        "", strategy, {"temperature": 0.9}, ids=range(30, 50), seed=3, max_length=10, samples=samples
    )
    manager = manager_of(specs, "amateur", "draft")
    for role in ROLES:
        manager.get(role, lambda: False)
    # A trace is checked on `meta`, which is the far device's name here, and kept for the process.
    monkeypatch.setattr(step_runner, "TracedChoice", lambda *_: None)
    device = StrictDevice(recorder)
    with device.opened():
        got = run(manager, request)
    wanted = run(manager_of(specs), request)
    assert device.launches > 100
    assert (device.mixed, device.strayed) == (set(), set())
    for row in range(samples):
        assert got.column("id", row) == wanted.column("id", row)


@pytest.mark.parametrize("strategy", ["top_p", "contrastive", "mirostat"])
def test_prompt_and_choice_run_on_the_main_models_device(
    strategy: str, specs: dict[str, ModelSpec], recorder: Recorder
) -> None:
    manager = manager_of(specs, *ROLES)
    for role in ROLES:
        manager.get(role, lambda: False)
    device = StrictDevice(recorder)
    request = Request("", strategy, ids=range(30, 50), seed=3, max_length=10)
    with device.opened():
        explain_token(Question(request, 77), manager, (), PrefixCache(), lambda: False)
    assert device.launches > 100
    assert device.strayed == set()
    assert recorder.stack == ["none"]


def test_a_model_is_loaded_with_its_device_current(specs: dict[str, ModelSpec], recorder: Recorder) -> None:
    seen: list[str] = []

    def weights(*arguments: Any) -> Weights:
        seen.append(recorder.current)
        return Weights(*arguments)

    assert load(specs["model"], weights_from=weights).model.info.device == "cpu"
    assert seen == ["cpu"]


def test_devices_without_a_current_one_are_left_alone() -> None:
    with entered("cpu"), entered("mps"):
        pass


def test_a_captured_forward_keeps_its_addresses(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that replays the piece itself stands for CUDA's."""
    where: list[str] = []

    def capture(piece: Callable[[], None]) -> SimpleNamespace:
        where.append(recorder.current)
        return SimpleNamespace(replay=piece)

    monkeypatch.setattr(cuda_capture, "capture", capture)
    counted: list[int] = []
    forward = AwayForward(
        lambda tokens, parent: (tokens if parent is None else tokens[parent]).double(), "cpu", DEVICE
    )

    def run_one(tokens: torch.Tensor, parent: torch.Tensor | None) -> torch.Tensor:
        forward.start(tokens, parent, (8,), counted.append)
        return forward.fetch()

    one, pair, parent = torch.tensor([[5], [7]]), torch.tensor([[1, 2], [3, 4]]), torch.tensor([1, 1])
    with FarDevice().opened():
        before = [run_one(one, None), run_one(pair, parent)]
        assert counted == []
        forward.capture((8,))
        assert where == ["cpu", "cpu"]
        after = [
            run_one(one + 1, None),
            run_one(pair + 1, parent),
        ]
    assert counted == [1, 2]
    assert all(a is b and isinstance(a, FarTensor) for a, b in zip(before, after, strict=True))
    assert [each.near.tolist() for each in after if isinstance(each, FarTensor)] == [
        [[6.0], [8.0]],
        [[4.0, 5.0], [4.0, 5.0]],
    ]


def test_far_models_say_so(specs: dict[str, ModelSpec]) -> None:
    events: list[Event] = []
    manager = ModelManager(events.append, load_far, specs)
    manager.get("amateur", lambda: False)
    assert [each.device for each in events if isinstance(each, Loaded)] == [DEVICE]
