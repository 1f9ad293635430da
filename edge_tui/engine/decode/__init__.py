"""Decodes one request: reads the prompt, launches steps, turns records into tokens."""
