"""Holds what a run has said, as tokens in columns, and lays it out in lines. Knows no widget."""
