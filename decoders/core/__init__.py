"""Holds the machinery of strategies, apart from the strategies themselves."""
