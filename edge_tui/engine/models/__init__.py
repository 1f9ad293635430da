"""Runs language models behind one interface: the flat decoder, and anything else through transformers."""
