"""Compares strategies with independent references, on thousands of random distributions."""
