"""How a strategy is found: name → class."""
