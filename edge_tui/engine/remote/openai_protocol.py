"""Decodes a request on any server that speaks OpenAI's API, as far as that API can express it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_tui import decoders
from edge_tui.decoders.base import TextParam, numbers
from edge_tui.engine.decode.resolve import ResolvedParams, resolve_params
from edge_tui.engine.events import Event, Finished, FinishReason, FirstToken, Started, TokenBatch
from edge_tui.engine.remote.capabilities import ALTERNATIVES
from edge_tui.engine.remote.http_client import RemoteError, read_error
from edge_tui.engine.token_fields import TOKEN_FIELDS, TOP
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Param
    from edge_tui.engine.port import Request
    from edge_tui.engine.remote.capabilities import ServerInfo
    from edge_tui.engine.remote.http_client import HttpClient
    from edge_tui.engine.remote.vocabulary import Vocabulary

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
_REASONS: dict[str, FinishReason] = {"stop": "eos", "length": "length"}
_UNCHECKED = ("presence_penalty", "frequency_penalty")
"""Parameters of the API that some servers ignore, or take for something else."""


async def decode(
    run: int,
    request: Request,
    server: ServerInfo,
    client: HttpClient,
    vocabulary: Vocabulary,
    post: Callable[[Event], None],
) -> None:
    """Decodes one request on the server.

    Args:
        run: Its number here.
        request: The request.
        server: The server's capabilities.
        client: The connection to it.
        vocabulary: Gives texts numbers.
        post: Takes the events.

    Raises:
        RequestError: the API cannot express the request.
        RemoteError: the server refused or broke off.
    """
    try:
        decoder = decoders.find(request.strategy)
    except decoders.UnknownStrategy as error:
        raise RequestError(str(error), "strategy") from error
    request = replace(request, strategy=decoder.name)
    resolved = resolve_params(request, decoder, {})
    path, body = write_request(request, resolved, server, vocabulary)
    start = time.perf_counter()
    first = last = 0.0
    reason: FinishReason = "done"
    count: int | None = None
    index = len(request.prefix)
    started = False
    async with aclosing(client.events(path, body)) as chunks:
        async for _, data in chunks:
            if not started:
                started = True
                post(_started(run, request, resolved, server, path))
            chunk = _read_chunk(data, client.host, vocabulary)
            if chunk.tokens:
                last = time.perf_counter()
                post(_build_batch(run, index, chunk.tokens))
                if not first:
                    first = last
                    post(FirstToken(run, first - start))
                index += len(chunk.tokens)
            reason, count = chunk.reason or reason, chunk.total or count
    if not started:
        raise RemoteError(f"{client.host} answered with no events; it may not stream.")
    new_tokens = index - len(request.prefix) if count is None else count
    wait = first - start if first else 0.0
    post(Finished(run, reason, new_tokens, wait, last - first, reasons=(reason,), tails=("",)))


def write_request(
    request: Request, resolved: ResolvedParams, server: ServerInfo, vocabulary: Vocabulary
) -> tuple[str, dict[str, Any]]:
    """Returns the endpoint and the body; fields that change nothing are left out, as some servers refuse
    unknown ones.

    Raises:
        RequestError: the API, or this server's part of it, cannot express the request.
    """
    if refusal := server.refusal(request.strategy):
        raise RequestError(refusal, "strategy")
    if request.samples != 1:
        raise RequestError(f"{server.host} decodes one sample at a time: set n to 1.", "samples")
    if request.ids:
        raise RequestError(f"{server.host} takes prompts as text only.", "ids")
    body: dict[str, Any] = {
        "max_tokens": request.max_length,
        "stream": True,
        **_sampling_params(request, resolved, server),
    }
    if server.model:
        body["model"] = server.model
    if request.stop:
        body["stop"] = request.stop
    if not decoders.find(request.strategy).takes_argmax:
        body["seed"] = resolved.seed
    prefix = "".join(vocabulary.texts(request.prefix))
    if server.chat and (request.chat is not False or not server.completions):
        if prefix:
            raise RequestError(
                f"The chat of {server.host} begins every answer anew: switch the chat template off to go on "
                "from a token, or run the prompt again.",
                "prefix",
            )
        if "chat" in server.logprobs:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        if request.template:
            body["chat_template_kwargs"] = dict(request.template)
        return CHAT_PATH, {**body, "messages": _messages(request)}
    if request.chat is True:
        raise RequestError(f"{server.host} has no chat for this model: switch the chat template off.", "chat")
    prompt = request.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
    if "completions" in server.logprobs:
        body["logprobs"] = ALTERNATIVES
    return COMPLETIONS_PATH, {**body, "prompt": text + prefix}


def _sampling_params(request: Request, resolved: ResolvedParams, server: ServerInfo) -> dict[str, Any]:
    """Returns the API's parameters that express the strategy.

    Raises:
        RequestError: a parameter that the API does not have is set to a value with an effect.
    """
    known = server.strategies[request.strategy] or frozenset()
    decoder = decoders.find(request.strategy)
    for param in decoder.params:
        if param.name in known or param.name not in request.values:
            continue
        if isinstance(param, TextParam):
            has_effect, neutral = resolved.texts[param.name] != param.neutral, param.text(param.neutral)
        else:
            has_effect, neutral = resolved.values[param.name] != _neutral(param), param.text(_neutral(param))
        if has_effect:
            raise RequestError(
                f"{param.title} does not exist in OpenAI's API, which {server.host} speaks: "
                f"set it back to {neutral}.",
                param.name,
            )
    # Many servers refuse a top_p of 0; the temperature says the same.
    known_params = [param for param in numbers(decoder.params) if param.name in known]
    greedy = {param.name for param in known_params if param.greedy == resolved.values[param.name]}
    sent: dict[str, Any] = {"temperature": 0} if greedy or decoder.takes_argmax else {}
    for name in sorted(known - greedy - sent.keys()):
        value = resolved.values[name]
        if name in ("temperature", "top_p") or value:
            sent[name] = round(value, 6)
    return sent


def _neutral(param: Param) -> float:
    """Returns the value at which a parameter does nothing."""
    return param.default if param.neutral is None else param.neutral


def _messages(request: Request) -> list[dict[str, str]]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    if isinstance(request.prompt, str):
        return [*system, {"role": "user", "content": request.prompt}]
    return [*system, *map(asdict, request.prompt)]


def _started(run: int, request: Request, resolved: ResolvedParams, server: ServerInfo, path: str) -> Started:
    """Builds the event that begins a run; the server has told no number of prompt tokens yet."""
    return Started(
        run=run,
        strategy=request.strategy,
        rows=1,
        columns=(),
        prompt_tokens=0,
        prefix_tokens=len(request.prefix),
        reused_tokens=0,
        max_new_tokens=request.max_length,
        seed=resolved.seed,
        values=resolved.resolved,
        notices=tuple(_notices(request, resolved, server, path)),
        model=server.title,
    )


def _notices(request: Request, resolved: ResolvedParams, server: ServerInfo, path: str) -> list[str]:
    """Lists what the server does not send, may ignore, or has no field for."""
    host, notices = server.host, []
    if ("chat" if path == CHAT_PATH else "completions") not in server.logprobs:
        notices.append(f"{host} sends no log-probabilities: there are no alternatives to look at.")
    if used := [name for name in _UNCHECKED if resolved.values.get(name)]:
        notices.append(f"{host} may ignore {' and '.join(used)}; that cannot be seen from here.")
    if request.control_tokens:
        notices.append(f"{host} may read control tokens in a prompt as text; that cannot be seen from here.")
    if path == COMPLETIONS_PATH:
        unused = {"system prompt": request.system, "template variables": request.template}
        notices += [
            f"Outside a chat template there is no place for the {name}: left out."
            for name, value in unused.items()
            if value
        ]
    if decoders.find(request.strategy).reads_checkpoint:
        notices.append(f"{host} samples by its own defaults: no parameter was sent.")
    return notices


_Entry = tuple[str, float | None, dict[str, float]]
"""A token's text, its log-probability, and its alternatives' by text."""


class _Token(NamedTuple):
    """Holds one token as a chunk describes it.

    Attributes:
        id: Our number for its text.
        text: Characters that it adds.
        logp: Log-probability (nats); None where the server sends none.
        top: Alternatives by id with their log-probabilities, best first.
    """

    id: int
    text: str
    logp: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class _Chunk(NamedTuple):
    """Holds an event of a stream.

    Attributes:
        tokens: New ones, if any.
        reason: Why the answer ended, if it has.
        total: Tokens of the answer as the server counts them, where it does.
    """

    tokens: list[_Token]
    reason: FinishReason | None
    total: int | None


def _read_chunk(data: Any, host: str, vocabulary: Vocabulary) -> _Chunk:
    """Reads an event of a stream.

    Raises:
        RemoteError: it reports an error, or is no chunk of OpenAI's API.
    """
    try:
        if "error" in data:
            raise RemoteError(f"{host} broke off: {read_error(data)[0]}")
        count = (data.get("usage") or {}).get("completion_tokens")
        choice: dict[str, Any] = next(iter(data.get("choices") or ()), {})
        end = choice.get("finish_reason")
        return _Chunk(
            list(_read_tokens(choice, vocabulary)),
            _REASONS.get(end, "done") if end else None,
            count if isinstance(count, int) else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RemoteError(f"{host} sent a chunk that OpenAI's API does not have.") from error


def _build_batch(run: int, start: int, tokens: Sequence[_Token]) -> TokenBatch:
    """Builds a batch of one row's tokens; fields that the server does not send have their empty value.

    Args:
        run: The run that they are part of.
        start: Index of the first of them.
        tokens: At least one.
    """
    import numpy as np

    n = len(tokens)
    columns: dict[str, Any] = {
        field.name: np.full((n, *field.shape(0)), field.empty, field.dtype)
        for field in TOKEN_FIELDS
        if field.kind != "candidates"
    }
    columns["step"] += np.arange(start, start + n, dtype=np.int32)
    for i, token in enumerate(tokens):
        columns["id"][i] = token.id
        if token.logp is not None:
            columns["raw_logp"][i] = token.logp
        for rank, (other, logp) in enumerate(token.top[:TOP]):
            columns["top_ids"][i, rank], columns["top_logp"][i, rank] = other, logp
            if other == token.id and columns["rank"][i] < 0:
                columns["rank"][i] = rank
    return TokenBatch(run=run, text=tuple(token.text for token in tokens), **columns)


def _read_tokens(choice: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[_Token]:
    """Yields a choice's tokens. Its log-probabilities say how many; without them a chunk counts as one.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is no choice of OpenAI's API.
    """
    delta = choice.get("delta") or {}
    text = choice.get("text") or f"{delta.get('reasoning_content') or ''}{delta.get('content') or ''}"
    logprobs = choice.get("logprobs") or {}
    entries = list(_chat_entries(logprobs) if logprobs.get("content") else _completion_entries(logprobs))
    if not entries:
        if text:
            yield _Token(vocabulary.id_of(text), text)
        return
    texts = [token for token, _, _ in entries]
    if "".join(texts) != text:  # spelt otherwise: the last token gets all of it
        texts = [*[""] * (len(texts) - 1), text]
    for part, (token, logp, top) in zip(texts, entries, strict=True):
        others = sorted(top.items(), key=lambda item: -item[1])
        numbered = tuple((vocabulary.id_of(other), value) for other, value in others)
        yield _Token(vocabulary.id_of(token), part, logp, numbered)


def _chat_entries(logprobs: Mapping[str, Any]) -> Iterator[_Entry]:
    """Yields the entries of a chat: one object for each token."""
    for entry in logprobs["content"]:
        others = ((str(it["token"]), it.get("logprob")) for it in entry.get("top_logprobs") or ())
        yield str(entry["token"]), _finite(entry.get("logprob")), _finite_values(others)


def _completion_entries(logprobs: Mapping[str, Any]) -> Iterator[_Entry]:
    """Yields the entries of a completion: lists side by side."""
    tokens = logprobs.get("tokens") or []
    logps = logprobs.get("token_logprobs") or [None] * len(tokens)
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    for token, logp, top in zip(tokens, logps, tops, strict=False):
        yield str(token), _finite(logp), _finite_values((top or {}).items())


def _finite_values(pairs: Any) -> dict[str, float]:
    return {str(text): logp for text, value in pairs if (logp := _finite(value)) is not None}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
