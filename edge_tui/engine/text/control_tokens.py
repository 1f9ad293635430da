"""Keeps the control tokens that a chat template writes apart from the same words typed by a user.

A tokenizer turns `<|im_end|>` into the control token wherever it stands, so that a message could end its own
turn and open another's. Two things prevent that. Users' text goes through the template with a private
character in the place of each such word (`ControlTokenMask`), so that the words in the rendered text are the
template's own. And the rendered text is encoded by a copy of the tokenizer in which every control token has
a random name (`PlainTokenizer`): the template's words get these names, the users' words have become ordinary
text. Normalisation, pieces between tokens and the marks at the front of a text stay those of the checkpoint.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

__all__ = ["ControlTokenMask", "PlainTokenizer", "any_of", "role_tokens", "texts"]

_PRIVATE = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
"""Code points that stand for a control token inside a template: no case, no width, never part of a word."""
_ESCAPED = re.compile(r"\\U[0-9a-f]{8}|(?:\\u[0-9a-f]{4}){2}")
"""Private characters as `_forms` writes them."""
_NAMES = re.compile(r"\w+_tokens?\Z")
"""Keys of tokenizer_config.json that name tokens: `eos_token`, `additional_special_tokens`."""


def role_tokens(tokenizer_config: Mapping[str, Any]) -> frozenset[str]:
    """Returns the tokens that a checkpoint's tokenizer_config.json calls special by their role."""

    def content(value: object) -> Iterable[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            inner = content(value["content"]) if "content" in value else value.values()
            yield from (item for item in inner if isinstance(item, str))
        elif isinstance(value, list):
            for item in value:
                yield from content(item)

    return frozenset(
        text
        for key, value in tokenizer_config.items()
        if _NAMES.match(key)
        for text in content(value)
        if text
    )


def any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Compiles a pattern that matches any of the names, the longest that fits; nothing if there are none.

    Names are laid out as a tree of characters: a plain alternation of some thousand names tries each of them
    at each place, which takes a minute for a megabyte of "<".
    """
    root: dict[str, Any] = {}
    for name in filter(None, names):
        node = root
        for char in name:
            node = node.setdefault(char, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        parts = [re.escape(char) + pattern(child) for char, child in node.items() if char]
        if not parts:
            return ""
        whole = parts[0] if len(parts) == 1 and "" not in node else f"(?:{'|'.join(parts)})"
        return f"{whole}?" if "" in node else whole

    return re.compile(pattern(root) or r"(?!)")


class ControlTokenMask:
    """Hides the control tokens in what users wrote from a chat template.

    Args:
        words: Matches a control token's name.
        values: All texts that users wrote, also nested in lists and tables.
        source: The template, whose characters are not used as marks.

    Raises:
        ValueError: every private character is taken; a whole sentence.
    """

    def __init__(self, words: re.Pattern[str], values: Iterable[object], source: str) -> None:
        user_texts = [text for value in values for text in texts(value)]
        self.found = Counter(word for text in user_texts for word in words.findall(text))
        """The number of times that users wrote each name."""
        used = set(source).union(*user_texts)
        escaped = {form for text in (source, *user_texts) for form in _ESCAPED.findall(text)}
        free = (c for c in map(chr, _PRIVATE) if c not in used and escaped.isdisjoint(_forms(c)))
        self.marks = dict(zip(self.found, free, strict=False))
        """The character that stands for each name."""
        if len(self.marks) < len(self.found):
            raise ValueError(
                "The prompt holds control tokens and every private character of Unicode: take the latter out."
            )
        self._words = words

    def hide(self, value: Any) -> Any:
        """Returns the value with marks for names; tables keep their keys."""
        if isinstance(value, str):
            return self._words.sub(lambda match: self.marks[match[0]], value)
        if isinstance(value, Mapping):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value


class PlainTokenizer:
    """Encodes text in which control tokens' names are ordinary text.

    Args:
        fast: The checkpoint's tokenizer.
        control: Names of its control tokens, and their ids.

    Raises:
        ValueError: the tokenizer cannot be copied with other names for them.
    """

    def __init__(self, fast: FastTokenizer, control: Mapping[str, int]) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        nonce = secrets.token_hex(8)
        # Lower-case letters and digits: no normalizer changes them.
        self._aliases = {name: f"x{nonce}x{index}x" for name, index in control.items()}
        try:
            state = _renamed(json.loads(fast.to_str()), self._aliases)
            self._fast = FastTokenizer.from_str(json.dumps(state))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(str(error)) from error
        if any(self._fast.token_to_id(self._aliases[name]) != i for name, i in control.items()):
            raise ValueError("its control tokens would get other ids")

    def encode(self, text: str, special: bool) -> list[int]:
        """Encodes a text that a user wrote; `special` adds what the tokenizer adds to a raw text."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=special).ids
        return ids

    def encode_rendered(self, text: str, words: re.Pattern[str], marks: Mapping[str, str]) -> list[int]:
        """Encodes a rendered conversation.

        Args:
            text: As the template wrote it, with a mark where a user wrote a control token's name.
            words: Matches every added token's name.
            marks: The mark of each name.
        """
        return self.encode(self.rename(text, words, marks), special=False)

    def rename(self, text: str, words: re.Pattern[str], marks: Mapping[str, str]) -> str:
        """Writes aliases for the template's names, and the users' names for their marks."""
        text = words.sub(lambda match: self._aliases.get(match[0], match[0]), text)
        for name, mark in marks.items():
            for form in _forms(mark):
                text = text.replace(form, name)
        return text

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes a text in which `rename` was used; also returns each token's place in it."""
        encoding = self._fast.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets


def _forms(char: str) -> tuple[str, str, str]:
    """Spells a private character as templates write it: itself, in Python's repr, in ASCII JSON."""
    return char, repr(char)[1:-1], json.dumps(char)[1:-1]


def _renamed(state: dict[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Gives tokens other names in a tokenizer's serialised state."""

    def renamed(name: str) -> str:
        return aliases.get(name, name)

    for token in state["added_tokens"]:
        if token["content"] in aliases:  # where the template writes it, it is the token, also inside a word
            token |= {"content": renamed(token["content"]), "single_word": False}
    model = state["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {renamed(piece): index for piece, index in vocab.items()}
    else:  # unigram: pieces with their scores
        model["vocab"] = [[renamed(piece), score] for piece, score in vocab]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = renamed(model["unk_token"])
    if "merges" in model:  # ordinary text must not be merged into a control token
        model["merges"] = [merge for merge in model["merges"] if aliases.keys().isdisjoint(_parts(merge))]
    return state


def _parts(merge: str | list[str]) -> tuple[str, str, str]:
    """Returns the two halves of a merge, and their result."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right, left + right


def texts(value: object) -> Iterable[str]:
    """Yields every text in a value, also nested in lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
