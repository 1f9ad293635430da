"""Holds helpers that know nothing of decoding: text for terminals, logs, watched files. Imports nothing of ours."""
