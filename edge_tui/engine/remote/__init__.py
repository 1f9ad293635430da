"""The engine port over a server: an `edge-tui serve`, or whatever speaks OpenAI's API."""

from edge_tui.engine.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
