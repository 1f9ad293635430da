"""Holds helpers that know nothing of decoding: text for terminals, logs, files. Imports nothing of ours."""
