"""Measures the engine that users get: speed against the hardware and against `generate()`, and quality."""
