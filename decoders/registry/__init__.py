"""Finds strategies: those of this folder, of installed packages, and of the user's own files."""
