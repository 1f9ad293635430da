"""The full-screen face: Textual widgets over the engine's event stream. Imports no torch."""
