"""Runs the commands of `edge-tui`: one module for each, and one for its flags where it has many."""
