"""HTTP faces of the engine. Decodes nothing itself: what it says comes through `edge_tui.engine.port`."""
