"""Serves the engine over HTTP. Reaches it through `edge_tui.engine.port` only."""
