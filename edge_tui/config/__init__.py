"""Holds every setting: its kind, its default, its file, and where each value came from. Imports no torch."""
