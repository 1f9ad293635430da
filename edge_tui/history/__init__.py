"""Writes runs to a database while they stream; finds, compares, exports and imports them.

`recorder` takes an engine's events and writes through `store` from a thread of its own; `restore` turns a
stored run into the transcript that the screen showed. Nothing here knows a widget, and importing it loads
neither torch nor numpy.
"""
