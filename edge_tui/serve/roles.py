"""Assigns models to roles and reports which of them are in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edge_tui.engine import events
from edge_tui.engine.port import FOLLOWERS, Engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import ModelSpec


class ServedEngine(Engine, Protocol):
    """Extends the engine's port by a list of the models in memory."""

    def loaded(self) -> Mapping[ModelSpec, Loaded]:
        """Returns the models in memory; each has the role that it was loaded for."""


class Roles:
    """Tracks the model of each role: its spec, and whether it is loaded, loading or has failed to load.

    Weights are shared: roles with equal specs are in memory together, and leave it together.

    Args:
        engine: Loads the models.
        specs: Model by role.

    Attributes:
        specs: Model by role, as last assigned.
        loading: Role → name of what is being loaded.
        load_errors: Role → sentence, of those whose last load has failed.
    """

    def __init__(self, engine: ServedEngine, specs: Mapping[str, ModelSpec]) -> None:
        self.specs = dict(specs)
        self.loading: dict[str, str] = {}
        self.load_errors: dict[str, str] = {}
        self._engine = engine
        self._required = {"model"}
        self._starting: set[str] = set()

    @property
    def loaded(self) -> dict[str, Loaded]:
        """The models in memory, by role."""
        models = self._engine.loaded()
        return {role: replace(models[spec], role=role) for role, spec in self.specs.items() if spec in models}

    @property
    def name(self) -> str:
        """The name of the main model."""
        main = self.loaded.get("model")
        return main.name if main is not None else self.specs["model"].name

    @property
    def names(self) -> set[str]:
        """Names that requests may give the main model: its own, and that of its spec."""
        return {self.name, self.specs["model"].name}

    @property
    def problem(self) -> str:
        """Why a required model could not be loaded; "" if none has failed."""
        return next((text for role, text in self.load_errors.items() if role in self._required), "")

    @property
    def ready(self) -> bool:
        """True while the main model is in memory and no required one is loading or has failed."""
        return not (self.problem or self._starting) and "model" in self.loaded

    def start(self, roles: Iterable[str]) -> None:
        """Loads the models that the server's own strategy requires."""
        self._starting = set(roles)
        self._required |= self._starting
        for role in roles:
            self._engine.load(role)

    def assign_and_load(self, role: str, spec: ModelSpec) -> dict[str, ModelSpec]:
        """Assigns a model and loads it; a role that follows this one gets it too.

        Returns:
            The roles that have changed, with their specs from before.
        """
        changed, old = {role: spec}, self.specs[role]
        follower = FOLLOWERS.get(role, "")
        if (following := self.specs.get(follower)) and replace(following, device=old.device) == old:
            elsewhere = following.device != old.device
            changed[follower] = replace(spec, device=following.device if elsewhere else spec.device)
        before = {each: self.specs[each] for each in changed}
        self.assign(changed)
        self._engine.load(role)
        return before

    def assign(self, specs: Mapping[str, ModelSpec]) -> None:
        """Assigns models, which load on first use, and clears the errors of those before."""
        for role, spec in specs.items():
            self.specs[role] = spec
            self._starting.discard(role)
            self.load_errors.pop(role, None)
            self._engine.assign(role, spec)

    def apply(self, event: Event) -> bool:
        """Updates the state from an event about models; returns False for any other event."""
        match event:
            case events.Loading():
                self.loading[event.role] = event.name
            case events.Loaded():
                self.loading.pop(event.role, None)
                self.load_errors.pop(event.role, None)
                self._starting.discard(event.role)
            case events.Unloaded():
                pass
            case events.Failed(run=None):
                self.loading.clear()
                if event.role:
                    self.load_errors[event.role] = event.message
                    self._starting.discard(event.role)
            case _:
                return False
        return True
