"""Computes products and measures threads on a CPU."""
