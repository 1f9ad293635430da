"""Reads model checkpoints: finds them, checks their files, gives one tensor at a time."""
