"""Holds the terminal workbench for decoding strategies of language models."""

__version__ = "0.1.0"
