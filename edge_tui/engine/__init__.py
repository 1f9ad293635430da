"""Runs decoders on models. Knows no widget and no HTTP; importing it loads no torch."""
