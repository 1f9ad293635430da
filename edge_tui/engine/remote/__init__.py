"""Implements the engine's port over HTTP: on an `edge-tui serve`, or on a server that speaks OpenAI's API."""

from edge_tui.engine.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
