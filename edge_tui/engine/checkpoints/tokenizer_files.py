"""Reads what a folder says about its tokenizer: the tokenizer, its vocabulary, its class's special tokens."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint, check_pointer
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tokenizers import Tokenizer as FastTokenizer

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a tokenizer has at least one."""
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def check_tokenizer(name: str, path: Path, has: Callable[[str], bool]) -> None:
    """Refuses a checkpoint without a tokenizer, or with one that needs a package that is missing.

    Raises:
        CheckpointError: it is such a checkpoint.
    """
    if not any(has(file) for file in _FILES):
        raise IncompleteCheckpoint(
            f"{name} has no tokenizer (tokenizer.json) in {path}; finish its download."
        )
    check_pointer(name, path / "tokenizer.json")
    models = [file for file in _SENTENCEPIECE if has(file)]
    if has("tokenizer.json") or not models or has("vocab.json"):
        return
    check_pointer(name, path / models[0])
    if find_spec("sentencepiece") is None:
        raise CheckpointError(
            f"{name} has no tokenizer.json, and its {models[0]} needs the package sentencepiece, which is "
            "missing; install it with 'pip install sentencepiece', or take a revision with tokenizer.json."
        )


def read_tokenizer(name: str, path: Path) -> FastTokenizer:
    """Reads tokenizer.json, or the files that transformers converts to one.

    Raises:
        CheckpointError: there is no tokenizer, or it is broken.
    """
    from tokenizers import Tokenizer as FastTokenizer

    file = path / "tokenizer.json"
    try:
        if file.exists():
            return FastTokenizer.from_file(str(file))
        from transformers import AutoTokenizer

        slow = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        converted: FastTokenizer = slow.backend_tokenizer
    except Exception as error:  # bare ones of the library; of slow tokenizers each its own kinds
        reason = logs.first_line(error)
        raise CheckpointError(
            f"The tokenizer of {name} cannot be read ({reason}); fetch tokenizer.json again."
            if file.exists()
            else f"{name} has no tokenizer.json and its tokenizer cannot be converted ({reason}); "
            "save it once with transformers to get one."
        ) from error
    return converted


@lru_cache(maxsize=8)
def class_tokens(path: Path) -> dict[str, str]:
    """Returns the special tokens of a folder that leaves some to the tokenizer's class, e.g. GPT-2's."""
    from transformers import AutoTokenizer, logging

    logging.set_verbosity_error()  # it would write into the screen
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        return dict(tokenizer.special_tokens_map)
    except Exception:  # transformers has no such class, or cannot make it: then nobody knows a default
        return {}


def vocabulary(path: Path) -> tuple[str, dict[str, int]]:
    """Returns a fingerprint of a folder's vocabulary and the ids of its added tokens."""
    file = path / "tokenizer.json"
    try:
        return _read_vocabulary(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        others = (path / other for other in ("tokenizer.model", "vocab.json", "merges.txt", "spiece.model"))
        stored = b"".join(other.read_bytes() for other in others if other.exists())
        return hashlib.sha256(stored).hexdigest(), {}


@lru_cache(maxsize=8)
def _read_vocabulary(file: Path, _mtime: int) -> tuple[str, dict[str, int]]:
    """Reads tokenizer.json once per version of the file."""
    stored = json.loads(file.read_bytes())
    added = {str(token["content"]): int(token["id"]) for token in stored.get("added_tokens") or []}
    vocab = stored["model"]["vocab"]
    pairs = dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    special = {token: int(i) for token in added if (i := pairs.get(token)) is not None} | added
    lines = sorted((int(i), token) for token, i in (pairs | added).items())
    text = "".join(f"{i} {token}\n" for i, token in lines)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), special
