"""Draws the panes of the main screen."""
