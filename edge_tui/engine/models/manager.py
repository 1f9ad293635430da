"""Loads and unloads the models of the roles. Used by the owner thread alone."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint, pair_refusal
from edge_tui.engine.events import Event, Loaded, Loading, Progress, Unloaded
from edge_tui.engine.models.cpu_threads import probe
from edge_tui.engine.models.device_memory import memory_of, release_cached_memory
from edge_tui.engine.ops.triton.availability import hash_triton
from edge_tui.engine.port import ModelSpec
from edge_tui.errors import RequestError
from edge_tui.machine.cuda_context import begin_context
from edge_tui.machine.devices import nvml_kept_open

if TYPE_CHECKING:
    from edge_tui.engine.models.base import LanguageModel
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.text.tokenizer import Tokenizer

Loader = Callable[..., "LoadedModel"]
"""`load(spec, progress, cancelled)`, as `edge_tui.engine.models.loader.load` documents it."""


class ModelManager:
    """Holds the models in memory.

    Args:
        post: Takes the events.
        load: Brings a model into memory in place of `edge_tui.engine.models.loader.load`, called as that is.
        roles: Model by role.
        on_drop: Called with a model before its memory is given back.
    """

    def __init__(
        self,
        post: Callable[[Event], None],
        load: Loader | None = None,
        roles: Mapping[str, ModelSpec] | None = None,
        on_drop: Callable[[LanguageModel], None] | None = None,
    ) -> None:
        self.roles: dict[str, ModelSpec] = dict(roles or {})
        self._drop_equal_expert()
        self.tokenizer: Tokenizer | None = None
        """Of the run that began last; it serves when the model is gone, too."""
        self._on_drop = on_drop or (lambda _: None)
        self._loaded: dict[ModelSpec, LoadedModel] = {}
        self._facts: dict[ModelSpec, Loaded] = {}
        self._post = post
        self._load = load

    def assign(self, role: str, spec: ModelSpec) -> None:
        """Gives a role to a model; models that no role wants any longer leave memory."""
        before = dict(self.roles)
        self.roles[role] = spec
        self._drop_equal_expert()
        for orphan in [spec for spec in self._loaded if spec not in self.roles.values()]:
            self._drop(orphan, before)

    def _drop_equal_expert(self) -> None:
        """Drops the role of an expert that is the main model, so that it follows that model."""
        if self.roles.get("expert") == self.roles.get("model"):
            self.roles.pop("expert", None)

    def spec(self, role: str) -> ModelSpec | None:
        """Returns the model of a role, None if none is assigned; the expert falls back to the main model."""
        return self.roles.get(role) or (self.roles.get("model") if role == "expert" else None)

    def check_pair(self, roles: tuple[str, ...]) -> None:
        """Refuses models that cannot decode together, before anything is loaded.

        Raises:
            RequestError: a role has no model, or two vocabularies differ.
        """
        main: Checkpoint | None = None
        for role in roles:
            checkpoint = open_checkpoint(self._spec_of(role).name)
            main = main or checkpoint
            if checkpoint is not main and (sentence := pair_refusal(main, checkpoint)):
                raise RequestError(sentence, role)

    def _spec_of(self, role: str) -> ModelSpec:
        if (spec := self.spec(role)) is None:
            raise RequestError(f"No model is chosen for the role {role}: choose one under models.", role)
        return spec

    def get(self, role: str, cancelled: Callable[[], bool]) -> LoadedModel:
        """Returns the role's model, and loads it if it is not in memory.

        Raises:
            CheckpointError, LoadError: with one sentence for the user.
        """
        spec = self._spec_of(role)
        if spec in self._loaded:
            return self._loaded[spec]
        role = role if role in self.roles else "model"
        from edge_tui.engine.models.loader import load

        load = self._load or load
        self._post(Loading(role, spec.name))
        total = 1

        def report(done: int, of: int) -> None:
            nonlocal total
            total = of
            self._post(Progress("load", done, of, spec.name))

        with nullcontext() if spec.device in ("cpu", "mps") else nvml_kept_open():
            begin_context(spec.device, hash_triton)
            if import_torch():
                from edge_tui.engine.models.first_reading import expect

                expect()
            if spec.device not in ("cpu", "mps") and sys.modules["torch"].cuda.is_available():
                hash_triton()
            began = time.perf_counter()
            loaded = load(spec, report, cancelled)
        report(total, total)  # headers and tensors that nobody needs are never read
        self._loaded[spec] = loaded
        if loaded.model.info.device == "cpu":
            probe(loaded.model)
        info = loaded.model.info
        self._facts[spec] = Loaded(
            role=role,
            name=info.name,
            architecture=info.architecture,
            tier=info.tier,
            device=info.device,
            precision=info.precision,
            dtype=info.dtype,
            vocab=loaded.tokenizer.size,
            context=loaded.context,
            parameters=info.parameters,
            weight_bytes=info.weight_bytes,
            seconds=time.perf_counter() - began,
            chat=loaded.checkpoint.chat_template is not None,
            notices=loaded.notices,
        )
        self._post(self._facts[spec])
        return loaded

    def facts(self) -> dict[ModelSpec, Loaded]:
        """Returns the `Loaded` event of each model in memory; any thread may call it."""
        return dict(self._facts)

    def peek(self, role: str) -> LoadedModel | None:
        """Returns the role's model if it is in memory."""
        spec = self.spec(role)
        return self._loaded.get(spec) if spec else None

    def unload(self, role: str) -> None:
        """Frees the role's model; the role keeps its assignment."""
        if (spec := self.spec(role)) in self._loaded:
            assert spec is not None
            self._drop(spec, self.roles)

    def clear(self) -> None:
        """Frees everything at once: whoever closes the engine wants to be gone, and no report.

        What is left for the collector on a CPU is small, and walking a big heap for it would be waited for.
        """
        on_gpu = any(loaded.model.info.device.startswith("cuda") for loaded in self._loaded.values())
        while self._loaded:
            model = self._loaded.popitem()[1].model
            self._on_drop(model)
            model.release()
        if on_gpu:
            release_cached_memory()

    def _drop(self, spec: ModelSpec, roles_before: Mapping[str, ModelSpec]) -> None:
        loaded = self._loaded.pop(spec)
        self._facts.pop(spec, None)
        device = loaded.model.info.device
        before = memory_of(device).allocated or 0
        self._on_drop(loaded.model)
        loaded.model.release()
        del loaded
        release_cached_memory()
        roles = tuple(role for role, other in roles_before.items() if other == spec)
        self._post(Unloaded(roles, spec.name, before, memory_of(device).allocated or 0))


def import_torch() -> bool:
    """Imports torch and tells the collector that it stays; tells whether it was not there before.

    Its objects, some hundred thousand, would be walked by each full collection, with the interpreter held,
    while tokens are due. Models come later: they are collected as ever. Collecting during the import, and at
    its end, takes a fifth of it (1.7 s of processor time instead of 1.35), for nothing: the process gets no
    smaller by it.
    """
    if "torch" in sys.modules:
        return False
    enabled = gc.isenabled()
    gc.disable()
    try:
        import torch.nn.functional  # noqa: F401
    finally:
        if enabled:
            gc.enable()
    gc.freeze()
    return True
