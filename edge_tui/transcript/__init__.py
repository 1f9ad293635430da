"""Stores the tokens of a run in columns and lays them out in lines. Knows no widget."""
