"""Finds `decoders.base` as `edge_tui.decoders.base`, for strategy files written before the package moved."""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OLD = "decoders"
NEW = "edge_tui.decoders"
PLACES = (NEW, "edge_tui.decoders.core", "edge_tui.decoders.registry")


class OldNames(MetaPathFinder, Loader):
    """Finds `decoders` and each module of ours below it, before any other package of that name.

    A package called `decoders` is on PyPI, and an author's own folder may be called so. A name that is not
    ours is left to the finders that follow.

    Attributes:
        used: Imported old names and the new ones they stand for, in order.
    """

    def __init__(self) -> None:
        self.used: list[tuple[str, str]] = []

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns a spec that loads our own module, or None where the name is not ours."""
        if fullname != OLD and not fullname.startswith(OLD + "."):
            return None
        rest = fullname.removeprefix(OLD)
        for name in [place + rest for place in PLACES]:
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                self.used.append((fullname, name))
                return ModuleSpec(fullname, self, origin=name)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns the same module under its old name, so that classes are the same classes."""
        module = importlib.import_module(spec.origin or "")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Puts the module's own spec back, whose place the import system gave to that of the old name."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> OldNames:
    """Puts the finder first among the interpreter's finders, once; returns it."""
    for finder in sys.meta_path:
        if isinstance(finder, OldNames):
            return finder
    finder = OldNames()
    sys.meta_path.insert(0, finder)
    return finder
