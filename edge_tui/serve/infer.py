"""`/infer` and `/infer/stream`: a prompt in, a text out; the seed of this server, and its richest face."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from edge_tui.decoders.base import ParamError
from edge_tui.engine import events
from edge_tui.serve import columns, stream
from edge_tui.serve.errors import ApiError, of_failure
from edge_tui.serve.response_accumulator import Answer, tokens_of
from edge_tui.serve.schemas import Infer, InferStream, SetParameter

if TYPE_CHECKING:
    from edge_tui.engine import port
    from edge_tui.serve.dispatcher import Dispatcher, Place
    from edge_tui.serve.request_builder import Asked

DEFAULT_TOKENS = 100
"""New tokens where neither a request nor the operator names a number: what `/infer` has always given."""


def router(dispatcher: Dispatcher, asked: Asked) -> APIRouter:
    """The routes.

    Args:
        dispatcher: Runs generations.
        asked: Knows defaults and limits.
    """
    routes = APIRouter(tags=["infer"])
    live: dict[str, Place] = {}

    @routes.post("/infer", summary="Decode a prompt")
    async def infer(body: Infer, request: Request) -> Response:
        wanted = _wanted(asked, body)
        with dispatcher.admit(lane(request)) as place:
            try:
                answer = await stream.unless_gone(request, decode(place, wanted, Answer(body.n)))
            except stream.Gone:
                return stream.gone()
            said: dict[str, Any] = {"output": answer.texts[0].text if answer.texts else ""}
            if body.n > 1:
                said["outputs"] = [text.text for text in answer.texts]
            if body.details:
                said |= _details(answer, place)
            return stream.answer(said, headers(place))

    @routes.post(
        "/infer/stream",
        summary="Decode a prompt, token by token",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "start, token …, end"}},
    )
    async def infer_stream(body: InferStream, request: Request) -> Response:
        wanted = _wanted(asked, body)
        place = dispatcher.admit(lane(request))
        name = secrets.token_hex(12)
        if body.format == "columns":  # whoever reads them wants to see the prompt being read
            batches = place.run(wanted)
        else:
            try:
                batches = await stream.unless_gone(request, opened(place, wanted))
            except stream.Gone:
                return stream.gone()

        async def chunks() -> AsyncIterator[str]:
            live[name] = place
            try:
                if body.format == "columns":
                    async for chunk in columns.chunks(name, batches, dispatcher.engine.decode):
                        yield chunk
                else:
                    async for chunk in _tokens(name, batches, place, body, dispatcher):
                        yield chunk
            finally:
                live.pop(name, None)

        return stream.Events(chunks(), place, headers(place))

    @routes.post("/infer/stream/{generation}/params", summary="Turn a parameter while tokens come")
    async def turn(generation: str, body: SetParameter) -> dict[str, bool]:
        if (place := live.get(generation)) is None:
            raise ApiError(
                404, "There is no such generation any more; parameters of a finished one are fixed."
            )
        try:
            place.set(body.name, body.value)
        except ParamError as error:
            raise ApiError(422, str(error), body.name, "invalid_value") from error
        return {"ok": True}

    return routes


async def decode(place: Place, wanted: port.Request, answer: Answer) -> Answer:
    """Decodes one request to its end, into `answer`; nobody watches it on the way.

    Raises:
        ApiError: the engine refused it, or failed.
    """
    async for batch in place.run(replace(wanted, watched=False)):
        for event in batch:
            for _ in answer.feed(event):
                pass
    if answer.failed is not None:
        raise of_failure(answer.failed)
    return answer


async def opened(place: Place, wanted: port.Request) -> AsyncIterator[list[events.Event]]:
    """Starts a request and waits until the engine has taken it, so that a refusal can have a status.

    If that does not come to pass the place is given back.

    Raises:
        ApiError: the engine refused it.
    """
    batches = place.run(wanted)
    first: list[events.Event] = []
    try:
        async for batch in batches:
            first += batch
            for event in batch:
                if isinstance(event, events.Failed):
                    raise of_failure(event)
            if any(isinstance(event, events.Started | events.Finished) for event in batch):
                break
    except BaseException:
        place.leave()
        raise

    async def rest() -> AsyncIterator[list[events.Event]]:
        yield first
        if not isinstance(first[-1], events.Finished):
            async for batch in batches:
                yield batch

    return rest()


def lane(request: Request) -> str:
    """Who asks, for the queue's fairness."""
    return request.client.host if request.client is not None else ""


def headers(place: Place) -> dict[str, str]:
    """How long the queue was when the request came."""
    return {"X-Queue-Length": str(place.ahead)}


def reason(text_reason: str, place: Place) -> str:
    """Why an answer ended, in words; a generation that took too long says so."""
    return "time" if text_reason == "cancelled" and place.timed_out else text_reason


def _wanted(asked: Asked, body: Infer) -> port.Request:
    prompt = body.prompt
    turns = [turn.message() for turn in prompt if not isinstance(turn, int | str)]
    return asked.request(
        prompt if isinstance(prompt, str) else turns or [token for token in prompt if isinstance(token, int)],
        strategy=body.strategy,
        params=body.params,
        tokens=asked.tokens(body.max_length, DEFAULT_TOKENS),
        field="max_length",
        n=body.n,
        seed=body.seed,
        stop=body.stop,
        chat=body.chat if body.chat is not None else asked.settings.chat,
        system=body.system,
        template=body.chat_template_kwargs,
        control_tokens=body.control_tokens,
        mode=body.mode,
        prefix=body.prefix,
    )


def _details(answer: Answer, place: Place) -> dict[str, Any]:
    started, finished = answer.started, answer.finished
    assert finished is not None
    said: dict[str, Any] = {
        "finish_reasons": [reason(text.reason, place) for text in answer.texts],
        "new_tokens": finished.new_tokens,
        "time_to_first_token": finished.time_to_first_token,
        "seconds": finished.seconds,
        "tokens_per_second": finished.tokens_per_second,
        "notices": answer.notices,
    }
    if finished.ranked:
        said["scores"] = [text.score for text in answer.texts]
    if started is not None:
        said |= {
            "model": started.model,
            "strategy": started.strategy,
            "seed": started.seed,
            "prompt_tokens": started.prompt_tokens,
            "params": {name: {"value": it.value, "source": it.source} for name, it in started.values.items()},
        }
    return said


async def _tokens(
    name: str,
    batches: AsyncIterator[list[events.Event]],
    place: Place,
    body: InferStream,
    dispatcher: Dispatcher,
) -> AsyncIterator[str]:
    """One event a token: `start`, `token` …, `change`, `end`, or `error` where it broke."""
    answer = Answer(body.n)
    names: tuple[str, ...] = ()
    async for batch in batches:
        parts = []
        for event in batch:
            for _ in answer.feed(event):
                pass
            match event:
                case events.Started():
                    names = event.columns
                    parts.append(stream.message({"id": name, **columns.started(event)}, "start"))
                case events.TokenBatch():
                    parts += [
                        stream.message(token, "token")
                        for token in _told(event, names, body.alternatives, dispatcher)
                    ]
                case events.ParamChanged():
                    parts.append(stream.message(columns.changed(event), "change"))
                case events.Finished():
                    outputs = [text.text for text in answer.texts] or [""]
                    end = {"output": outputs[0], **({"outputs": outputs} if body.n > 1 else {})}
                    parts.append(stream.message({**end, **_details(answer, place)}, "end"))
                case events.Failed():
                    parts.append(stream.message(of_failure(event).body(), "error"))
        if parts:
            yield "".join(parts)


def _told(
    batch: events.TokenBatch, names: tuple[str, ...], top: int, dispatcher: Dispatcher
) -> list[dict[str, Any]]:
    """A batch's tokens as objects."""
    texts = columns.pieces(batch.top_ids[:, :top], dispatcher.engine.decode)
    extras = batch.extras.tolist()
    return [
        {
            "index": int(batch.step[i]),
            "row": token.row,
            "parent": int(batch.parent[i]),
            "id": token.id,
            "text": token.text,
            "logprob": token.logp,
            "final_logprob": float(batch.final_logp[i]),
            "rank": int(batch.rank[i]),
            "entropy": float(batch.entropy[i]),
            "alternatives": [
                {"id": other, "text": texts[other], "logprob": logp} for other, logp in token.top
            ],
            **dict(zip(names, extras[i], strict=True)),
        }
        for i, token in enumerate(tokens_of(batch, top))
    ]
