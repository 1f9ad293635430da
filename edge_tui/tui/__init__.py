"""Shows the engine's event stream full screen, with Textual. Imports no torch."""
