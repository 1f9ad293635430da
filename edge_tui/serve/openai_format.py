"""How OpenAI's answers put things: reasons, tokens, usage."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edge_tui.engine.events import FinishReason, Started
    from edge_tui.serve.dispatcher import Place
    from edge_tui.serve.response_accumulator import Answer

_BYTE = re.compile(r"⟨([0-9A-F]{2})⟩")
_REASONS: dict[str, str] = {
    "eos": "stop",
    "stop": "stop",
    "done": "stop",
    "length": "length",
    "context": "length",
}


def finish_reason(reason: FinishReason, place: Place) -> str:
    """Why an answer ended; one that was cut off by the limit on time is as good as too long."""
    return _REASONS.get(reason, "length" if place.timed_out else "abort")


class Wording:
    """What all parts of one answer share.

    Args:
        kind: Prefix of its id: "cmpl" or "chatcmpl".
        model: The model's name until `written_by` tells another.
        decode: Display text of token ids.
    """

    def __init__(self, kind: str, model: str, decode: Callable[[Sequence[int]], list[str]]) -> None:
        self._head = {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._decode = decode
        self._texts: dict[int, str] = {}

    def written_by(self, started: Started | None) -> None:
        """Takes the name of the model that writes an answer, once it has started."""
        if started is not None and started.model:
            self._head["model"] = started.model

    def body(self, what: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        """An answer, or a part of one; `what` is its kind of object."""
        return {**self._head, "object": what, "choices": choices, **more}

    def learn(self, ids: Iterable[int]) -> None:
        """Looks up the display texts of token ids, all at once."""
        fresh = sorted(set(ids) - self._texts.keys())
        self._texts.update(zip(fresh, self._decode(fresh), strict=True))

    def text(self, token: int) -> str:
        """The display text of a token: bytes that make no character alone show as ⟨E2⟩."""
        if token not in self._texts:
            self.learn([token])
        return self._texts[token]


def bytes_of(text: str) -> list[int]:
    """The bytes that a display text stands for."""
    raw = bytearray()
    end = 0
    for match in _BYTE.finditer(text):
        raw += text[end : match.start()].encode("utf-8", "replace") + bytes([int(match[1], 16)])
        end = match.end()
    return list(raw + text[end:].encode("utf-8", "replace"))


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """How many tokens were read and written."""
    prompt = sum(answer.prompt_tokens for answer in answers)
    new = sum(answer.new_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def ours(answers: Sequence[Answer]) -> dict[str, Any]:
    """What OpenAI's format has no field for: how each prompt was decoded."""
    runs = []
    for answer in answers:
        if (started := answer.started) is None:
            continue
        run: dict[str, Any] = {
            "model": started.model,
            "strategy": started.strategy,
            "seed": started.seed,
            "params": {name: it.value for name, it in started.values.items()},
            "notices": answer.notices,
        }
        if answer.finished is not None and answer.finished.ranked:
            run["scores"] = [text.score for text in answer.texts]
        runs.append(run)
    return {"runs": runs}
