"""Serves `/explain` and `/tokens`, and adds to a generation that asks for it why its tokens were taken.

A question costs one forward, so that the number of those that one request asks is bounded. Each queues anew:
other clients wait for one question, and never for all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from math import nan
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response  # noqa: TC002 — FastAPI reads the annotations

from edge_tui.engine import port
from edge_tui.engine.remote.explanation_json import write_explanation
from edge_tui.serve.errors import ApiError
from edge_tui.serve.schemas import Encode, Explain
from edge_tui.serve.stream import client_id, json_response, run_while_connected
from edge_tui.transcript.question import question_of

if TYPE_CHECKING:
    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.request_builder import RequestBuilder
    from edge_tui.transcript.transcript import Transcript

Tokens = bool | Literal["last"] | list[int]
"""Tokens to explain: all new ones or none, the last of each row, or those of these numbers in each row."""

MOST = 512
"""Tokens that one request may have explained."""


def router(dispatcher: Dispatcher, builder: RequestBuilder) -> APIRouter:
    """Returns the route.

    Args:
        dispatcher: Asks the engine.
        builder: Applies defaults and limits.
    """
    routes = APIRouter(tags=["infer"])

    @routes.post("/explain", summary="Say why a token was taken")
    async def explain(body: Explain, request: Request) -> Response:
        engine_request = builder.generation(body)
        if engine_request.seed is None or engine_request.seed < 0:
            raise ApiError(422, "seed is missing: send the one that the run used.", "seed", "missing")
        for name in body.others:
            builder.decoder(name, {}, "others")
        question = port.Question(
            engine_request,
            body.token,
            tuple(body.candidates),
            nan if body.margin is None else body.margin,
            tuple(body.others),
            body.model,
            {name: nan if value is None else value for name, value in body.recorded.items()},
        )
        with closing(dispatcher.admit(client_id(request))) as slot:
            explanation = await run_while_connected(request, slot.explain(question))
            return json_response(write_explanation(explanation), slot)

    @routes.post("/tokens", summary="Turn a text into token ids")
    async def tokens(body: Encode) -> dict[str, Any]:
        """Encodes a text for `candidates`; it needs no step of the model, so it waits for nobody."""
        engine = dispatcher.engine
        if not engine.alive() or (ids := engine.ids(body.text)) is None:
            raise ApiError(503, dispatcher.problem or "No model is loaded yet; try again later.")
        return {"ids": ids, "texts": engine.decode(ids)}

    return routes


def check_number(tokens: Tokens, request: port.Request) -> None:
    """Refuses to explain more tokens than one request may have explained.

    Raises:
        ApiError: it names the number.
    """
    in_a_row = request.max_length if tokens is True else 1 if tokens == "last" else len(tokens or ())
    if (number := in_a_row * request.samples) > MOST:
        raise ApiError(
            422,
            f"explain asks of up to {number:,} tokens, but one request may ask of {MOST}: choose a smaller"
            ' max_length, "last", or numbers of tokens.',
            "explain",
            "too_many_tokens",
        )


async def explanations(
    slot: QueueSlot, request: port.Request, transcript: Transcript | None, tokens: Tokens
) -> AsyncIterator[dict[str, Any]]:
    """Yields an object for each token to explain: its place, and its explanation or an error.

    Args:
        slot: That of the generation, which has ended.
        request: The generation's request.
        transcript: Its tokens; None if it never began.
        tokens: Those to explain.
    """
    if transcript is None or tokens is False:
        return
    for row in range(request.samples):
        for index in _numbers(transcript.sample(row), tokens):
            try:
                written = write_explanation(await slot.explain(question_of(transcript, request, index, row)))
            except IndexError as error:
                refused = ApiError(422, str(error), "explain", "no_such_token")
            except ApiError as error:
                refused = error
            else:
                yield {"index": index, "row": row, **written}
                continue
            yield {"index": index, "row": row, **refused.body()}
            if (
                refused.status_code >= 500
            ):  # of the engine, or the server ends: the next one would have it too
                return


def _numbers(path: Transcript, tokens: bool | Literal["last"] | list[int]) -> Iterable[int]:
    """Lists the numbers of the tokens to explain in one row."""
    if isinstance(tokens, list):
        return sorted(set(tokens))
    first, end = path.started.prefix_tokens, len(path)
    return range(max(first, end - 1) if tokens == "last" else first, end)
