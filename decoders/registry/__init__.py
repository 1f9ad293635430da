"""Finds strategies: those of this folder, of installed packages, and of the user's own files."""

from edge_tui.decoders.core.errors import Problem
from edge_tui.decoders.registry.registry import Registry, UnknownStrategy

__all__ = ["Problem", "Registry", "UnknownStrategy"]
