"""`/v1/completions`: texts continued, or only judged (`echo` with `logprobs`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.engine import events, port
from edge_tui.serve import stream
from edge_tui.serve.errors import ApiError, of_failure
from edge_tui.serve.infer import decode, headers, lane, opened
from edge_tui.serve.openai_format import Wording, finish_reason, ours, usage
from edge_tui.serve.response_accumulator import Answer, Token, tokens_of_prompt

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response

    from edge_tui.serve.dispatcher import Dispatcher, Place
    from edge_tui.serve.options import Options
    from edge_tui.serve.request_builder import Asked
    from edge_tui.serve.schemas import Completion

OBJECT = "text_completion"
DEFAULT_TOKENS = 16
"""New tokens where a request names no number: OpenAI's."""


async def respond(
    body: Completion, request: Request, dispatcher: Dispatcher, asked: Asked, options: Options
) -> Response:
    """Answers a request.

    Raises:
        ApiError: it is refused, or failed before its first token.
    """
    wanted = _wanted(body, asked, options)
    wording = Wording("cmpl", dispatcher.roles.name, dispatcher.engine.decode)
    place = dispatcher.admit(lane(request), body.model)
    if body.stream:
        try:
            first = await stream.unless_gone(request, opened(place, wanted[0]))
        except stream.Gone:
            return stream.gone()
        return stream.Events(_chunks(body, wanted, first, place, wording), place, headers(place))
    with place:
        try:
            answers = await stream.unless_gone(request, _all(body, wanted, place))
        except stream.Gone:
            return stream.gone()
    choices = []
    wording.written_by(answers[0].started)
    for index, answer in enumerate(answers):
        echoed, judged, places = _echo(body, wanted[index], answer, wording)
        for row, text in enumerate(answer.texts):
            all_places = [*places, *_running(text.tokens, len(echoed))]
            choices.append(
                {
                    "index": index * body.n + row,
                    "text": echoed + text.text,
                    "logprobs": _logprobs(body, [*judged, *text.tokens], all_places, wording),
                    "finish_reason": finish_reason(text.reason, place),
                }
            )
    said = wording.body(OBJECT, choices, usage=usage(answers), edge_tui=ours(answers))
    return stream.answer(said, headers(place))


def _wanted(body: Completion, asked: Asked, options: Options) -> list[port.Request]:
    """One engine request for each prompt.

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
    tokens = asked.tokens(body.max_tokens, DEFAULT_TOKENS)
    if tokens == 0 and not body.echo:
        raise ApiError(422, "max_tokens is 0, which only means something with echo: true.", "max_tokens")
    wanted = [
        asked.request(
            prompt,
            strategy=body.strategy,
            params=body.params,
            standard=body.standard(),
            tokens=tokens,
            n=body.n,
            seed=body.seed,
            control_tokens=body.control_tokens,
            stop=body.stop,
            prompt_logps=body.echo
            and (tokens == 0 or body.logprobs is not None or not isinstance(prompt, str)),
        )
        for prompt in prompts
    ]
    if body.logprobs is not None and decoders.find(wanted[0].strategy).kind == "search":
        raise ApiError(
            422, "A search's answers come without logprobs: leave them out.", "logprobs", "unsupported"
        )
    return wanted


def _prompts(body: Completion) -> list[str | list[int]]:
    """The prompts one by one: a list of numbers is one prompt, a list of anything else is several."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    ids = [token for token in prompt if isinstance(token, int)]
    several = [item for item in prompt if not isinstance(item, int)]
    if not ids and not several:
        raise ApiError(400, "The prompt is an empty list: give at least one text.", "prompt", "empty_prompt")
    return [ids] if ids else list(several)


async def _all(body: Completion, wanted: list[port.Request], place: Place) -> list[Answer]:
    keep = body.logprobs is not None
    return [await decode(place, each, Answer(body.n, keep, body.logprobs or 0)) for each in wanted]


def _echo(
    body: Completion, wanted: port.Request, answer: Answer, wording: Wording
) -> tuple[str, list[Token], list[int]]:
    """The prompt's text, its tokens, and where each of them begins in the text; as far as it is asked for."""
    if not body.echo:
        return "", [], []
    judged = body.logprobs is not None and answer.prompt is not None
    tokens = list(tokens_of_prompt(answer.prompt, body.logprobs or 0)) if judged and answer.prompt else []
    if isinstance(wanted.prompt, str) and not wanted.ids:
        return wanted.prompt, tokens, _places_in(wanted.prompt, tokens, wording)
    return "".join(answer.prompt.text) if answer.prompt is not None else "", tokens, _running(tokens, 0)


def _running(tokens: list[Token], start: int) -> list[int]:
    """Where tokens begin whose texts follow each other."""
    return list(accumulate((len(token.text) for token in tokens[:-1]), initial=start)) if tokens else []


def _places_in(text: str, tokens: list[Token], wording: Wording) -> list[int]:
    """Where the tokens of a text begin in it.

    Control tokens have no text of their own, but a client may have spelt them; one that the tokenizer added
    takes no room. A tokenizer may drop spaces around them.
    """
    wording.learn(token.id for token in tokens)
    places, end = [], 0
    for token in tokens:
        spelt, start = token.text or wording.text(token.id), end
        while start < len(text) and text[start].isspace() and not text.startswith(spelt, start):
            start += 1
        found = bool(spelt) and text.startswith(spelt, start)
        places.append(start if found else end)
        end = min(len(text), places[-1] + (len(spelt) if found else len(token.text)))
    return places


def _logprobs(body: Completion, tokens: list[Token], places: list[int], wording: Wording) -> Any:
    """OpenAI's four lists: one entry for each token, offsets in characters of the text."""
    if body.logprobs is None:
        return None
    kept = [(token, place) for token, place in zip(tokens, places, strict=True) if token.id >= 0]
    tokens = [token for token, _ in kept]
    wording.learn({token.id for token in tokens} | {other for token in tokens for other, _ in token.top})
    return {
        "tokens": [wording.text(token.id) for token in tokens],
        "token_logprobs": [token.logp for token in tokens],
        "top_logprobs": [_top(token, wording) for token in tokens],
        "text_offset": [place for _, place in kept],
    }


def _top(token: Token, wording: Wording) -> dict[str, float] | None:
    """The likeliest tokens by text, and the token itself; two of one text count as the likelier one."""
    if token.logp is None:
        return None
    found: dict[str, float] = {}
    for other, logp in (*token.top, (token.id, token.logp)):
        text = wording.text(other)
        found[text] = max(logp, found.get(text, logp))
    return found


async def _chunks(
    body: Completion,
    wanted: list[port.Request],
    first: AsyncIterator[list[events.Event]],
    place: Place,
    wording: Wording,
) -> AsyncIterator[str]:
    """The answers of all prompts one after the other, a chunk for each token."""
    more = {"usage": None} if body.stream_options is not None and body.stream_options.include_usage else {}
    answers = []

    def chunk(
        index: int, text: str, tokens: list[Token], places: list[int], reason: str | None = None
    ) -> str:
        logprobs = _logprobs(body, tokens, places, wording) if tokens or reason is None else None
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return stream.message(wording.body(OBJECT, [choice], **more))

    for number, request in enumerate(wanted):
        answer = Answer(body.n, top=body.logprobs or 0)
        answers.append(answer)
        begin = number * body.n
        offsets = [0] * body.n
        async for batch in first if number == 0 else place.run(request):
            parts = []
            for event in batch:
                for token in answer.feed(event):
                    shown = [token] if body.logprobs is not None else []
                    parts.append(chunk(begin + token.row, token.text, shown, [offsets[token.row]]))
                    offsets[token.row] += len(token.text)
                if isinstance(event, events.Started):
                    wording.written_by(event)
                if isinstance(event, events.Started) and body.echo:
                    text, judged, places = _echo(body, request, answer, wording)
                    parts += [chunk(begin + row, text, judged, places) for row in range(body.n)]
                    offsets = [len(text)] * body.n
                if isinstance(event, events.Finished):
                    for row, text_ in enumerate(answer.texts):
                        rest = "" if answer.streams else text_.text
                        reason = finish_reason(text_.reason, place)
                        parts.append(chunk(begin + row, rest, [], [], reason))
            if parts:
                yield "".join(parts)
        if answer.failed is not None:
            yield stream.message(of_failure(answer.failed).body())
            yield "data: [DONE]\n\n"
            return
    if more:
        yield stream.message(wording.body(OBJECT, [], usage=usage(answers), edge_tui=ours(answers)))
    yield "data: [DONE]\n\n"
