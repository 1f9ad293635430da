"""Formats answers as OpenAI's objects: the envelope, choices, finish reasons, tokens, usage."""

from __future__ import annotations

import re
import secrets
import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from edge_tui.serve.errors import of_failure
from edge_tui.serve.response_accumulator import tokens_of_prompt
from edge_tui.serve.stream import format_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edge_tui.engine.events import FinishReason
    from edge_tui.engine.port import Request
    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.response_accumulator import ResponseAccumulator, Token
    from edge_tui.serve.schemas import Chat, Completion

Choice = dict[str, Any]
_BYTE = re.compile(r"⟨([0-9A-F]{2})⟩")
_REASONS = {"eos": "stop", "stop": "stop", "done": "stop", "length": "length", "context": "length"}


def finish_reason(reason: FinishReason, slot: QueueSlot) -> str:
    """Returns OpenAI's finish reason; the limit on time counts as a length."""
    return _REASONS.get(reason, "length" if slot.timed_out else "abort")


class OpenAiFormat:
    """Formats what both kinds of response share: one id, time and model for all their objects.

    Args:
        body: The request.
        top: Alternatives of each token in the answer; None without log-probabilities.
        dispatcher: Gives the model's name, until one has started, and the texts of ids.
    """

    id_prefix: str
    object_type: str
    chunk_type: str

    def __init__(self, body: Chat | Completion, top: int | None, dispatcher: Dispatcher) -> None:
        self.n = body.n
        self.top = top
        self._envelope = {
            "id": f"{self.id_prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": dispatcher.roles.name,
        }
        self._usage_chunk = body.stream_options is not None and body.stream_options.include_usage
        self._decode = dispatcher.engine.decode

    def response(self, choices: list[Choice], answers: Sequence[ResponseAccumulator]) -> dict[str, Any]:
        """Returns the whole response."""
        return self._object(self.object_type, choices, **_totals(answers))

    def chunk(self, choice: Choice) -> str:
        """Formats a part of a stream."""
        usage = {"usage": None} if self._usage_chunk else {}
        return format_event(self._object(self.chunk_type, [choice], **usage))

    def end(self, answers: Sequence[ResponseAccumulator]) -> str:
        """Formats the end of a stream: the last answer's error or the usage, and `[DONE]`."""
        last = ""
        if (failed := answers[-1].failed) is not None:
            last = format_event(of_failure(failed).body())
        elif self._usage_chunk:
            last = format_event(self._object(self.chunk_type, [], **_totals(answers)))
        return f"{last}data: [DONE]\n\n"

    def set_model(self, answer: ResponseAccumulator) -> None:
        """Takes the name of the model that decodes the request, once it has started."""
        if answer.started is not None and answer.started.model:
            self._envelope["model"] = answer.started.model

    def _object(self, object_type: str, choices: list[Choice], **more: Any) -> dict[str, Any]:
        return {**self._envelope, "object": object_type, "choices": choices, **more}

    def _texts(self, tokens: Iterable[Token]) -> dict[int, str]:
        """Decodes the ids of tokens and their alternatives; bytes that are no character show as ⟨E2⟩."""
        ids = sorted({other for token in tokens for other in (token.id, *(each for each, _ in token.top))})
        return dict(zip(ids, self._decode(ids), strict=True))


class ChatFormat(OpenAiFormat):
    """Formats the answers to `/v1/chat/completions`."""

    id_prefix = "chatcmpl"
    object_type = "chat.completion"
    chunk_type = "chat.completion.chunk"

    def __init__(self, body: Chat, dispatcher: Dispatcher) -> None:
        super().__init__(body, (body.top_logprobs or 0) if body.logprobs else None, dispatcher)

    def choices(self, _: int, __: Request, answer: ResponseAccumulator, slot: QueueSlot) -> Iterator[Choice]:
        """Yields the choices of a whole response."""
        for row, choice in enumerate(answer.choices):
            message = {"role": "assistant", "content": choice.text, "refusal": None}
            reason = finish_reason(choice.reason, slot)
            yield _choice(row, "message", message, self._logprobs(choice.tokens), reason)

    def opening(self, _: int, __: Request, answer: ResponseAccumulator) -> list[Choice]:
        """Returns the first part of each choice of a stream."""
        self.set_model(answer)
        return [_choice(row, "delta", {"role": "assistant", "content": ""}) for row in range(self.n)]

    def token(self, token: Token) -> Choice:
        """Returns a token's part of a stream."""
        return _choice(token.row, "delta", {"content": token.text}, self._logprobs([token]))

    def ending(self, answer: ResponseAccumulator, slot: QueueSlot) -> list[Choice]:
        """Returns the last parts of each choice: a search's text, then the finish reason."""
        parts = []
        for row, choice in enumerate(answer.choices):
            if answer.is_search:
                parts.append(_choice(row, "delta", {"content": choice.text}))
            parts.append(_choice(row, "delta", {}, None, finish_reason(choice.reason, slot)))
        return parts

    def _logprobs(self, tokens: list[Token]) -> Any:
        """Returns OpenAI's list, one object for each token."""
        if self.top is None:
            return None
        tokens = [token for token in tokens if token.id >= 0]
        texts = self._texts(tokens)

        def entry(token: int, logp: float | None) -> dict[str, Any]:
            text = texts[token]
            return {"token": text, "logprob": logp, "bytes": utf8_bytes(text)}

        return {
            "content": [
                {
                    **entry(token.id, token.logp),
                    "top_logprobs": [entry(other, logp) for other, logp in token.top],
                }
                for token in tokens
            ],
            "refusal": None,
        }


class CompletionFormat(OpenAiFormat):
    """Formats the answers to `/v1/completions`, of several prompts one after the other."""

    id_prefix = "cmpl"
    object_type = chunk_type = "text_completion"

    def __init__(self, body: Completion, dispatcher: Dispatcher) -> None:
        super().__init__(body, body.logprobs, dispatcher)
        self._echo = body.echo
        self._first_index = 0
        self._lengths: list[int] = []
        """Characters of each choice of a stream so far."""

    def choices(
        self, number: int, request: Request, answer: ResponseAccumulator, slot: QueueSlot
    ) -> Iterator[Choice]:
        """Yields the choices of a prompt for a whole response."""
        prompt, tokens, offsets = self._prompt(request, answer)
        for row, choice in enumerate(answer.choices):
            all_offsets = [*offsets, *_offsets(choice.tokens, len(prompt))]
            logprobs = self._logprobs([*tokens, *choice.tokens], all_offsets)
            reason = finish_reason(choice.reason, slot)
            yield _choice(number * self.n + row, "text", prompt + choice.text, logprobs, reason)

    def opening(self, number: int, request: Request, answer: ResponseAccumulator) -> list[Choice]:
        """Begins the stream of a prompt; returns the prompt, if it is to be echoed, for each choice."""
        self.set_model(answer)
        self._first_index = number * self.n
        text, tokens, offsets = self._prompt(request, answer)
        self._lengths = [len(text)] * self.n
        if not self._echo:
            return []
        first, logprobs = self._first_index, self._logprobs(tokens, offsets)
        return [_choice(first + row, "text", text, logprobs) for row in range(self.n)]

    def token(self, token: Token) -> Choice:
        """Returns a token's part of a stream."""
        logprobs = self._logprobs([token], [self._lengths[token.row]])
        self._lengths[token.row] += len(token.text)
        return _choice(self._first_index + token.row, "text", token.text, logprobs)

    def ending(self, answer: ResponseAccumulator, slot: QueueSlot) -> list[Choice]:
        """Returns the last part of each choice: a search's text, and the finish reason."""
        parts = []
        for index, choice in enumerate(answer.choices, self._first_index):
            text = choice.text if answer.is_search else ""
            parts.append(_choice(index, "text", text, None, finish_reason(choice.reason, slot)))
        return parts

    def _prompt(self, request: Request, answer: ResponseAccumulator) -> tuple[str, list[Token], list[int]]:
        """Returns the prompt's text, tokens and their offsets, as far as they are to be echoed."""
        if not self._echo:
            return "", [], []
        tokens = []
        if self.top is not None and answer.prompt is not None:
            tokens = list(tokens_of_prompt(answer.prompt, self.top))
        if isinstance(request.prompt, str) and not request.ids:
            return request.prompt, tokens, self._offsets_in(request.prompt, tokens)
        return "".join(answer.prompt.text) if answer.prompt is not None else "", tokens, _offsets(tokens, 0)

    def _offsets_in(self, text: str, tokens: list[Token]) -> list[int]:
        """Finds the offsets of a text's tokens in it.

        Control tokens have no text of their own, but a client may have spelt them; one that the tokenizer
        added takes no room. A tokenizer may drop spaces around them.
        """
        texts = self._texts(tokens)
        offsets, end = [], 0
        for token in tokens:
            spelling, start = token.text or texts[token.id], end
            while start < len(text) and text[start].isspace() and not text.startswith(spelling, start):
                start += 1
            is_there = bool(spelling) and text.startswith(spelling, start)
            offsets.append(start if is_there else end)
            end = min(len(text), offsets[-1] + (len(spelling) if is_there else len(token.text)))
        return offsets

    def _logprobs(self, tokens: list[Token], offsets: list[int]) -> Any:
        """Returns OpenAI's four lists, one entry for each token; offsets count characters of the text."""
        if self.top is None:
            return None
        pairs = [(token, offset) for token, offset in zip(tokens, offsets, strict=True) if token.id >= 0]
        tokens = [token for token, _ in pairs]
        texts = self._texts(tokens)
        return {
            "tokens": [texts[token.id] for token in tokens],
            "token_logprobs": [token.logp for token in tokens],
            "top_logprobs": [_top_logprobs(token, texts) for token in tokens],
            "text_offset": [offset for _, offset in pairs],
        }


def _top_logprobs(token: Token, texts: dict[int, str]) -> dict[str, float] | None:
    """Returns the likeliest tokens and the token itself, by text; of one text the likelier one counts."""
    if token.logp is None:
        return None
    logps: dict[str, float] = {}
    for other, logp in (*token.top, (token.id, token.logp)):
        text = texts[other]
        logps[text] = max(logp, logps.get(text, logp))
    return logps


def _choice(index: int, key: str, content: Any, logprobs: Any = None, reason: str | None = None) -> Choice:
    return {"index": index, key: content, "logprobs": logprobs, "finish_reason": reason}


def _offsets(tokens: list[Token], start: int) -> list[int]:
    """Returns the offsets of tokens whose texts follow each other."""
    return list(accumulate((len(token.text) for token in tokens[:-1]), initial=start)) if tokens else []


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
    prompt = sum(answer.started.prompt_tokens for answer in answers if answer.started is not None)
    new = sum(choice.token_count for answer in answers for choice in answer.choices)
    usage = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
    runs = []
    for answer in answers:
        if (started := answer.started) is None:
            continue
        run: dict[str, Any] = {name: getattr(started, name) for name in ("model", "strategy", "seed")}
        if answer.seeds:
            run["seeds"] = answer.seeds
        run["params"] = {name: it.value for name, it in started.values.items()}
        run["notices"] = answer.notices
        if answer.finished is not None and answer.finished.ranked:
            run["scores"] = [choice.score for choice in answer.choices]
        runs.append(run)
    return {"usage": usage, "edge_tui": {"runs": runs}}
