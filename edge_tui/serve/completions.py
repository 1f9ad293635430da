"""Answers `/v1/completions`: continues texts, or only scores them (`echo` with `logprobs`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from edge_tui.engine import events, port
from edge_tui.serve import generation
from edge_tui.serve.errors import ApiError
from edge_tui.serve.openai_format import OpenAiFormat, finish_reason
from edge_tui.serve.response_accumulator import ResponseAccumulator, Token, tokens_of_prompt
from edge_tui.serve.stream import EventStream, json_response, run_while_connected

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response

    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.options import Options
    from edge_tui.serve.request_builder import RequestBuilder
    from edge_tui.serve.schemas import Completion

OBJECT_TYPE = "text_completion"
DEFAULT_TOKENS = 16
"""New tokens of a request that names no number: OpenAI's default."""


async def respond(
    body: Completion, request: Request, dispatcher: Dispatcher, builder: RequestBuilder, options: Options
) -> Response:
    """Returns the response to a request.

    Raises:
        ApiError: it is refused, or failed before its first token.
    """
    requests = _engine_requests(body, builder, options)
    form = OpenAiFormat("cmpl", OBJECT_TYPE, OBJECT_TYPE, dispatcher, body.stream_options)
    slot = dispatcher.admit(generation.client_id(request), body.model)
    if body.stream:
        first = await run_while_connected(request, generation.start(slot, requests[0]))
        return EventStream(_chunks(body, requests, first, slot, form), slot)
    with slot:
        answers = await run_while_connected(request, _decode_all(body, requests, slot))
    choices = []
    form.set_model(answers[0].started)
    for index, answer in enumerate(answers):
        prompt, prompt_tokens, prompt_offsets = _echo(body, requests[index], answer, form)
        for row, choice in enumerate(answer.choices):
            offsets = [*prompt_offsets, *_offsets(choice.tokens, len(prompt))]
            choices.append(
                {
                    "index": index * body.n + row,
                    "text": prompt + choice.text,
                    "logprobs": _logprobs(body, [*prompt_tokens, *choice.tokens], offsets, form),
                    "finish_reason": finish_reason(choice.reason, slot),
                }
            )
    return json_response(form.response(choices, answers), slot)


def _engine_requests(body: Completion, builder: RequestBuilder, options: Options) -> list[port.Request]:
    """Builds one engine request for each prompt.

    Raises:
        ApiError: something cannot be honoured.
    """
    prompts = _prompts(body)
    if len(prompts) > options.prompts:
        raise ApiError(
            422, f"{len(prompts)} prompts were sent, but a request takes at most {options.prompts}.", "prompt"
        )
    if body.best_of not in (None, body.n):
        raise ApiError(422, "best_of other than n is not supported: leave it out.", "best_of", "unsupported")
    tokens = builder.max_new_tokens(body.max_tokens, DEFAULT_TOKENS)
    if tokens == 0 and not body.echo:
        raise ApiError(422, "max_tokens is 0, which only means something with echo: true.", "max_tokens")
    return [
        builder.build(
            prompt,
            strategy=body.strategy,
            values=body.params,
            openai_params=body.openai_params(),
            max_length=tokens,
            samples=body.n,
            seed=body.seed,
            control_tokens=body.control_tokens,
            stop=body.stop,
            prompt_logps=body.echo
            and (tokens == 0 or body.logprobs is not None or not isinstance(prompt, str)),
            logprobs=body.logprobs is not None,
        )
        for prompt in prompts
    ]


def _prompts(body: Completion) -> list[str | list[int]]:
    """Returns the prompts: a list of numbers is one prompt, a list of anything else is several."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    ids = [token for token in prompt if isinstance(token, int)]
    several = [item for item in prompt if not isinstance(item, int)]
    if not ids and not several:
        raise ApiError(400, "The prompt is an empty list: give at least one text.", "prompt", "empty_prompt")
    return [ids] if ids else list(several)


async def _decode_all(
    body: Completion, requests: list[port.Request], slot: QueueSlot
) -> list[ResponseAccumulator]:
    keep = body.logprobs is not None
    return [
        await generation.decode(slot, request, ResponseAccumulator(body.n, keep, body.logprobs or 0))
        for request in requests
    ]


def _echo(
    body: Completion, request: port.Request, answer: ResponseAccumulator, form: OpenAiFormat
) -> tuple[str, list[Token], list[int]]:
    """Returns the prompt's text, tokens and their offsets, as far as the request wants them."""
    if not body.echo:
        return "", [], []
    tokens = []
    if body.logprobs is not None and answer.prompt is not None:
        tokens = list(tokens_of_prompt(answer.prompt, body.logprobs))
    if isinstance(request.prompt, str) and not request.ids:
        return request.prompt, tokens, _offsets_in(request.prompt, tokens, form)
    return "".join(answer.prompt.text) if answer.prompt is not None else "", tokens, _offsets(tokens, 0)


def _offsets(tokens: list[Token], start: int) -> list[int]:
    """Returns the offsets of tokens whose texts follow each other."""
    return list(accumulate((len(token.text) for token in tokens[:-1]), initial=start)) if tokens else []


def _offsets_in(text: str, tokens: list[Token], form: OpenAiFormat) -> list[int]:
    """Finds the offsets of a text's tokens in it.

    Control tokens have no text of their own, but a client may have spelt them; one that the tokenizer added
    takes no room. A tokenizer may drop spaces around them.
    """
    form.load_texts(tokens)
    offsets, end = [], 0
    for token in tokens:
        spelling, start = token.text or form.text(token.id), end
        while start < len(text) and text[start].isspace() and not text.startswith(spelling, start):
            start += 1
        found = bool(spelling) and text.startswith(spelling, start)
        offsets.append(start if found else end)
        end = min(len(text), offsets[-1] + (len(spelling) if found else len(token.text)))
    return offsets


def _logprobs(body: Completion, tokens: list[Token], offsets: list[int], form: OpenAiFormat) -> Any:
    """Returns OpenAI's four lists, one entry for each token; offsets count characters of the text."""
    if body.logprobs is None:
        return None
    pairs = [(token, offset) for token, offset in zip(tokens, offsets, strict=True) if token.id >= 0]
    tokens = [token for token, _ in pairs]
    form.load_texts(tokens)
    return {
        "tokens": [form.text(token.id) for token in tokens],
        "token_logprobs": [token.logp for token in tokens],
        "top_logprobs": [_top_logprobs(token, form) for token in tokens],
        "text_offset": [offset for _, offset in pairs],
    }


def _top_logprobs(token: Token, form: OpenAiFormat) -> dict[str, float] | None:
    """Returns the likeliest tokens and the token itself, by text; of one text the likelier one counts."""
    if token.logp is None:
        return None
    found: dict[str, float] = {}
    for other, logp in (*token.top, (token.id, token.logp)):
        text = form.text(other)
        found[text] = max(logp, found.get(text, logp))
    return found


async def _chunks(
    body: Completion,
    requests: list[port.Request],
    first: AsyncIterator[list[events.Event]],
    slot: QueueSlot,
    form: OpenAiFormat,
) -> AsyncIterator[str]:
    """Yields the answers of all prompts one after the other, a chunk for each token."""
    answers = []

    def chunk(
        index: int, text: str, tokens: list[Token], offsets: list[int], reason: str | None = None
    ) -> str:
        logprobs = _logprobs(body, tokens, offsets, form) if tokens or reason is None else None
        return form.chunk({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason})

    for number, request in enumerate(requests):
        answer = ResponseAccumulator(body.n, top=body.logprobs or 0)
        answers.append(answer)
        base = number * body.n
        offsets = [0] * body.n
        async for batch in first if number == 0 else slot.run(request):
            parts = []
            for event in batch:
                for token in answer.add(event):
                    shown = [token] if body.logprobs is not None else []
                    parts.append(chunk(base + token.row, token.text, shown, [offsets[token.row]]))
                    offsets[token.row] += len(token.text)
                if isinstance(event, events.Started):
                    form.set_model(event)
                    if body.echo:
                        text, tokens, prompt_offsets = _echo(body, request, answer, form)
                        parts += [chunk(base + row, text, tokens, prompt_offsets) for row in range(body.n)]
                        offsets = [len(text)] * body.n
                if isinstance(event, events.Finished):
                    for row, choice in enumerate(answer.choices):
                        rest = "" if answer.streams else choice.text
                        parts.append(chunk(base + row, rest, [], [], finish_reason(choice.reason, slot)))
            if parts:
                yield "".join(parts)
        if answer.failed is not None:
            break
    yield form.end(answers)
