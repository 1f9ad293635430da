"""Holds the full-screen terminal app, written with Textual. Imports no torch."""
