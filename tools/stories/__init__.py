"""The stories that the demo pair learns from: written by a small chat model, filtered, split."""
