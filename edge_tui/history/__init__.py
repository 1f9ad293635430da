"""Runs that stay: written while they stream, found again, compared, continued, carried elsewhere.

`recorder` listens to an engine and writes through `store` from a thread of its own; `restore` turns what is
kept into the transcript that the screen showed. Nothing here knows a widget, and importing it loads neither
torch nor numpy.
"""
