"""Checkpoints whose answers end where a test wants them to."""

from __future__ import annotations

import json
from pathlib import Path

from edge_tui.engine.events import PromptRead
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import EOS_ID, IM_END_ID, TOKENS, make_checkpoint
from tests.engine.watch import watch

END = "<|im_end|>"
KINDS = ("piece", "several", "named", "special", "unflagged")


def ending(folder: Path, token: int, kind: str, chat: bool = False) -> None:
    """Makes a checkpoint whose answers end with a token that it would have written anyway.

    Args:
        folder: Made.
        token: An id.
        kind: "piece" makes it end as it is, "several" among others, "named" by its text alone; "special" and
            "unflagged" let it change places with <|im_end|>, flagged special or not.
        chat: Whether a chat template comes along.
    """
    make_checkpoint(folder, seed=3, chat_template=chat)
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    vocab = state["model"]["vocab"]
    piece = next(piece for piece, i in vocab.items() if i == token)
    if kind in ("special", "unflagged"):
        vocab[END], vocab[piece] = token, IM_END_ID
        for added in state["added_tokens"]:
            if added["content"] == END:
                added |= {"id": token, "special": kind == "special"}
        state["added_tokens"].sort(key=lambda added: added["id"])
        file.write_text(json.dumps(state), encoding="utf-8")
    ends = {"several": [EOS_ID, token, TOKENS + 9], "named": None}.get(kind, token)
    for name in ("generation_config.json", "config.json"):
        config = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(config | {"eos_token_id": ends}), encoding="utf-8")
    if kind == "named":
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": piece}), encoding="utf-8")


def endless(folder: Path, prompt: str, chat: bool = False) -> tuple[tuple[int, ...], list[int], list[str]]:
    """Decodes greedily without any end: ids of the prompt, ids of the answer, and their texts."""
    make_checkpoint(folder, seed=3, chat_template=chat)
    engine = LocalEngine({"model": ModelSpec(str(folder), device="cpu")})
    seen = watch(engine, Request(prompt, strategy="greedy", max_length=24, prompt_logps=True))
    assert engine.close(60.0)
    return seen.all(PromptRead)[0].ids, seen.ids, seen.column("text")


def place(ids: list[int], texts: list[str]) -> int:
    """The first token, but not the very first ones, that is new and has a text."""
    return next(n for n in range(2, len(ids)) if ids[n] not in ids[:n] and texts[n].strip())
