"""Holds the references that strategies are compared with; none of them shares code with a strategy."""
