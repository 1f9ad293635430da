"""Decodes a request on another `edge-tui serve` and posts its events as if they had happened here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.engine.events import Event, Failed, Finished, Started
from edge_tui.engine.remote import codec
from edge_tui.engine.remote.explanation_json import read_explanation, write_question
from edge_tui.engine.remote.http_client import RemoteError, read_error

if TYPE_CHECKING:
    from edge_tui.engine.explanation import Explanation
    from edge_tui.engine.port import Question, Request
    from edge_tui.engine.remote.http_client import HttpClient
    from edge_tui.engine.remote.vocabulary import Vocabulary


async def decode(
    run: int,
    request: Request,
    client: HttpClient,
    vocabulary: Vocabulary,
    post: Callable[[Event], None],
    set_remote_id: Callable[[str], None],
) -> None:
    """Decodes one request on the server.

    Args:
        run: Its number here.
        request: The request.
        client: The connection to the server.
        vocabulary: Collects the texts of ids.
        post: Takes the events.
        set_remote_id: Takes the run's id on the server, which parameters are set by.

    Raises:
        RemoteError: the server refused or broke off.
    """
    extras = 0
    body = {**codec.write_request(request), "format": "columns"}
    async with aclosing(client.events("/infer/stream", body)) as events:
        async for name, data in events:
            try:
                if name == "tokens":
                    vocabulary.add(*data["pieces"])
                    post(codec.read_tokens(run, data, extras))
                    continue
                if name == "prompt":
                    vocabulary.add(*data["pieces"])
                    post(codec.read_prompt(run, data))
                    continue
                if name == "error":
                    message, field, code = read_error(data)
                    post(Failed(message, run, field, code=code or "error"))
                    return
                event = codec.read_event(run, name, data)
                if isinstance(event, Started):
                    set_remote_id(str(data["id"]))
                    extras = len(event.columns)
                    event = _with_sources(event, request)
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                raise RemoteError(
                    f"{client.host} speaks another edge-tui's language ({name}): run the same version."
                ) from error
            if event is not None:  # else it comes from a newer server
                post(event)
            if isinstance(event, Finished):
                return
    raise RemoteError(f"The connection to {client.host} ended early; what came so far is kept.")


async def explain(question: Question, client: HttpClient) -> Explanation:
    """Asks the server why a token was taken.

    Raises:
        RemoteError: the server cannot tell, or does not answer.
    """
    answer = await client.post("/explain", write_question(question))
    try:
        return read_explanation(answer)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RemoteError(
            f"{client.host} speaks another edge-tui's language (explain): run the same version."
        ) from error


async def encode(text: str, client: HttpClient, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Returns a text's ids under the tokenizer of the server's main model.

    Args:
        text: Read as it stands within an answer.
        client: The connection to the server.
        vocabulary: Collects the texts of the ids.

    Raises:
        RemoteError: the server cannot tell, or does not answer.
    """
    answer = await client.post("/tokens", {"text": text})
    try:
        ids = tuple(int(token) for token in answer["ids"])
        vocabulary.add(ids, [str(each) for each in answer["texts"]])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RemoteError(
            f"{client.host} speaks another edge-tui's language (tokens): run the same version."
        ) from error
    return ids


def _with_sources(started: Started, request: Request) -> Started:
    """Replaces the source of each value that was set here; the server only knows "request"."""
    values = {
        name: replace(each, source=request.sources.get(name, each.source))
        for name, each in started.values.items()
    }
    return replace(started, values=values)
