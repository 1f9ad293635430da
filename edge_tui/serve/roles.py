"""Assigns models to roles, and tells which of them are in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edge_tui.engine import events
from edge_tui.engine.port import Engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import ModelSpec

_FOLLOWERS = {"model": "expert", "amateur": "draft"}
"""Roles that go with another one's model as long as it is theirs, too."""


class Resident(Engine, Protocol):
    """An engine that tells what is in its memory."""

    def loaded(self) -> Mapping[ModelSpec, Loaded]:
        """The models in memory; each has the role that it was loaded for."""


class Roles:
    """The model of each role.

    Weights are shared: roles with equal specs are in memory together, and leave it together.

    Args:
        engine: Has the models.
        specs: Model by role.

    Attributes:
        specs: Model by role, as last assigned.
        loading: Role → name of what is being loaded.
        missing: Role → reason, of those that are needed and failed to load.
        failed: Role → reason, of the last load that was asked for.
    """

    def __init__(self, engine: Resident, specs: Mapping[str, ModelSpec]) -> None:
        self.specs = dict(specs)
        self.loading: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._engine = engine
        self._needed = {"model"}
        self._starting: set[str] = set()

    @property
    def loaded(self) -> dict[str, Loaded]:
        """The models in memory by each role that they play."""
        found = self._engine.loaded()
        return {role: replace(found[spec], role=role) for role, spec in self.specs.items() if spec in found}

    @property
    def name(self) -> str:
        """The name of the main model."""
        main = self.loaded.get("model")
        return main.name if main is not None else self.specs["model"].name

    @property
    def names(self) -> set[str]:
        """What the main model may be called: its name, and how it was asked for."""
        return {self.name, self.specs["model"].name}

    @property
    def ready(self) -> bool:
        """Whether the main model is in memory, and nothing that is needed is on its way or failed."""
        return not (self.missing or self._starting) and "model" in self.loaded

    def start(self, roles: Iterable[str]) -> None:
        """Loads what requests need that say nothing."""
        self._starting = set(roles)
        self._needed |= self._starting
        for role in roles:
            self._engine.load(role)

    def choose(self, role: str, spec: ModelSpec) -> dict[str, ModelSpec]:
        """Assigns a model and loads it; a role that follows this one gets it, too.

        Returns:
            The roles that have changed, with what they had before.
        """
        changed = [role]
        follower = _FOLLOWERS.get(role, "")
        if self.specs.get(follower) == self.specs[role]:
            changed.append(follower)
        before = {each: self.specs[each] for each in changed}
        self.assign(dict.fromkeys(changed, spec))
        self._engine.load(role)
        return before

    def assign(self, specs: Mapping[str, ModelSpec]) -> None:
        """Assigns models, to be loaded when they are needed; what was wrong with those before is over."""
        for role, spec in specs.items():
            self.specs[role] = spec
            self._starting.discard(role)
            self.missing.pop(role, None)
            self.failed.pop(role, None)
            self._engine.assign(role, spec)

    def take(self, event: Event) -> bool:
        """Notes an event about models; False for any other."""
        match event:
            case events.Loading():
                self.loading[event.role] = event.name
            case events.Loaded():
                self.loading.pop(event.role, None)
                self.missing.pop(event.role, None)
                self._starting.discard(event.role)
            case events.Unloaded():
                pass
            case events.Failed(run=None):
                self.loading.clear()
                if event.role:
                    self.failed[event.role] = event.message
                    self._starting.discard(event.role)
                if event.role in self._needed:
                    self.missing[event.role] = event.message
            case _:
                return False
        return True
