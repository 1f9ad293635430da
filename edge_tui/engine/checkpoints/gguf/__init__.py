"""Reads GGUF files: header, configuration, tokenizer, and weights dequantised tensor by tensor."""
