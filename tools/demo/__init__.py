"""The shipped pair of demo models: their text, their shape, their training and their figures."""
