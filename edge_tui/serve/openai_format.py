"""Formats answers as OpenAI's objects: the envelope, finish reasons, tokens, usage."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from edge_tui.serve.errors import of_failure
from edge_tui.serve.stream import format_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_tui.engine.events import FinishReason, Started
    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.response_accumulator import ResponseAccumulator, Token
    from edge_tui.serve.schemas import StreamOptions

_BYTE = re.compile(r"⟨([0-9A-F]{2})⟩")
_REASONS: dict[str, str] = {
    "eos": "stop",
    "stop": "stop",
    "done": "stop",
    "length": "length",
    "context": "length",
}


def finish_reason(reason: FinishReason, slot: QueueSlot) -> str:
    """Returns OpenAI's finish reason; the limit on time counts as a length."""
    return _REASONS.get(reason, "length" if slot.timed_out else "abort")


class OpenAiFormat:
    """Formats all objects of one response, which share id, time and model.

    Args:
        id_prefix: "cmpl" or "chatcmpl".
        object_type: Of a whole response.
        chunk_type: Of a part of a stream.
        dispatcher: Gives the model's name, until `set_model`, and the texts of ids.
        stream_options: OpenAI's; decides whether a stream ends with usage.
    """

    def __init__(
        self,
        id_prefix: str,
        object_type: str,
        chunk_type: str,
        dispatcher: Dispatcher,
        stream_options: StreamOptions | None,
    ) -> None:
        self._envelope = {
            "id": f"{id_prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": dispatcher.roles.name,
        }
        self._object_type = object_type
        self._chunk_type = chunk_type
        self._usage_chunk = stream_options is not None and stream_options.include_usage
        self._decode = dispatcher.engine.decode
        self._texts: dict[int, str] = {}

    def set_model(self, started: Started | None) -> None:
        """Takes the name of the model that decodes the request, once it has started."""
        if started is not None and started.model:
            self._envelope["model"] = started.model

    def response(self, choices: list[Any], answers: Sequence[ResponseAccumulator]) -> dict[str, Any]:
        """Returns the whole response."""
        return self._body(self._object_type, choices, **_totals(answers))

    def chunk(self, choice: dict[str, Any]) -> str:
        """Formats a part of a stream."""
        usage = {"usage": None} if self._usage_chunk else {}
        return format_event(self._body(self._chunk_type, [choice], **usage))

    def end(self, answers: Sequence[ResponseAccumulator]) -> str:
        """Formats the end of a stream: the last answer's error or the usage, and `[DONE]`."""
        last = ""
        if (failed := answers[-1].failed) is not None:
            last = format_event(of_failure(failed).body())
        elif self._usage_chunk:
            last = format_event(self._body(self._chunk_type, [], **_totals(answers)))
        return f"{last}data: [DONE]\n\n"

    def _body(self, object_type: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        return {**self._envelope, "object": object_type, "choices": choices, **more}

    def load_texts(self, tokens: Iterable[Token]) -> None:
        """Decodes the ids of tokens and their alternatives, all at once."""
        ids = {other for token in tokens for other in (token.id, *(each for each, _ in token.top))}
        missing = sorted(ids - self._texts.keys())
        self._texts.update(zip(missing, self._decode(missing), strict=True))

    def text(self, token: int) -> str:
        """Returns a token's display text after `load_texts`; bytes that are no character show as ⟨E2⟩."""
        return self._texts[token]


def utf8_bytes(text: str) -> list[int]:
    """Returns the bytes that a display text stands for."""
    raw = bytearray()
    end = 0
    for match in _BYTE.finditer(text):
        raw += text[end : match.start()].encode("utf-8", "replace") + bytes([int(match[1], 16)])
        end = match.end()
    return list(raw + text[end:].encode("utf-8", "replace"))


def _totals(answers: Sequence[ResponseAccumulator]) -> dict[str, Any]:
    """Returns the counts of tokens, and what OpenAI has no field for: how each prompt was decoded."""
    prompt = sum(answer.prompt_tokens for answer in answers)
    new = sum(answer.new_tokens for answer in answers)
    usage = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
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
            run["scores"] = [choice.score for choice in answer.choices]
        runs.append(run)
    return {"usage": usage, "edge_tui": {"runs": runs}}
