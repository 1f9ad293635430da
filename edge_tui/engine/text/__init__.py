"""Turns text into token ids and back: tokenizer, stop texts, chat templates."""
