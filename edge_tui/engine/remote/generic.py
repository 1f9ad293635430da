"""A run on any server that speaks OpenAI's API: texts in, chunks out, as much as the API lets through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.engine.decode.resolve import ResolvedParams, resolve_params
from edge_tui.engine.events import Event, Finished, FinishReason, FirstToken, Started
from edge_tui.engine.remote.batches import Said, number, of_tokens
from edge_tui.engine.remote.capabilities import ALTERNATIVES
from edge_tui.engine.remote.wire import WireError
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.decoders.base import Param
    from edge_tui.engine.port import Request
    from edge_tui.engine.remote.capabilities import Server
    from edge_tui.engine.remote.vocabulary import Vocabulary
    from edge_tui.engine.remote.wire import Wire

_REASONS: dict[str, FinishReason] = {"stop": "eos", "length": "length"}
_UNCHECKED = ("presence_penalty", "frequency_penalty")
"""Parameters of the API that some servers ignore, or take for something else."""


async def decode(
    run: int,
    request: Request,
    server: Server,
    wire: Wire,
    vocabulary: Vocabulary,
    post: Callable[[Event], None],
) -> None:
    """Decodes one request there.

    Args:
        run: Its number here.
        request: What to decode.
        server: What the server can do.
        wire: The connection to it.
        vocabulary: Gives texts numbers.
        post: Where events go.

    Raises:
        RequestError: the API cannot say what was asked for.
        WireError: the server refused or broke off.
    """
    try:
        decoder = decoders.find(request.strategy)
    except decoders.UnknownStrategy as error:
        raise RequestError(str(error), "strategy") from error
    request = replace(request, strategy=decoder.name)
    resolved = resolve_params(request, decoder, {})
    path, body = body_of(request, resolved, server, vocabulary)
    began = time.perf_counter()
    first = last = 0.0
    reason: FinishReason = "done"
    count: int | None = None
    index = len(request.prefix)
    opened = False
    async with aclosing(wire.events(path, body)) as chunks:
        async for _, told in chunks:
            if not opened:
                opened = True
                post(_started(run, request, resolved, server, path))
            chunk = _read(told, wire.host, vocabulary)
            if chunk.tokens:
                last = time.perf_counter()
                post(of_tokens(run, index, chunk.tokens))
                if not first:
                    first = last
                    post(FirstToken(run, first - began))
                index += len(chunk.tokens)
            reason = chunk.reason or reason
            count = chunk.count or count
    if not opened:
        raise WireError(f"{wire.host} answered with no events; it may not stream.")
    post(
        Finished(
            run=run,
            reason=reason,
            new_tokens=index - len(request.prefix) if count is None else count,
            time_to_first_token=first - began if first else 0.0,
            seconds=last - first if first else 0.0,
            reasons=(reason,),
            tails=("",),
        )
    )


def body_of(
    request: Request, resolved: ResolvedParams, server: Server, vocabulary: Vocabulary
) -> tuple[str, dict[str, Any]]:
    """The endpoint and what to send there; fields that change nothing are left out, as some servers refuse
    what they do not know.

    Raises:
        RequestError: the API, or this server's part of it, cannot say it.
    """
    if refusal := server.refusal(request.strategy):
        raise RequestError(refusal, "strategy")
    if request.samples != 1:
        raise RequestError(f"Several samples at once are not asked of {server.host}: set n to 1.", "samples")
    if request.ids:
        raise RequestError(f"{server.host} takes prompts as text only.", "ids")
    body: dict[str, Any] = {
        "max_tokens": request.max_length,
        "stream": True,
        **_sampling(request, resolved, server),
    }
    if server.model:
        body["model"] = server.model
    if request.stop:
        body["stop"] = list(request.stop)
    if not decoders.find(request.strategy).takes_argmax:
        body["seed"] = resolved.seed
    kept = vocabulary.join(request.prefix)
    if server.chat and (request.chat is not False or not server.completions):
        if kept:
            raise RequestError(
                f"The chat of {server.host} begins every answer anew: switch the chat template off to go on "
                "from a token, or run the prompt again.",
                "prefix",
            )
        if "chat" in server.logprobs:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        if request.template:
            body["chat_template_kwargs"] = dict(request.template)
        return "/v1/chat/completions", {**body, "messages": _messages(request)}
    if request.chat is True:
        raise RequestError(f"{server.host} has no chat for this model: switch the chat template off.", "chat")
    prompt = request.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)
    if "completions" in server.logprobs:
        body["logprobs"] = ALTERNATIVES
    return "/v1/completions", {**body, "prompt": text + kept}


def _sampling(request: Request, resolved: ResolvedParams, server: Server) -> dict[str, Any]:
    """The strategy in the API's words.

    Raises:
        RequestError: a parameter that the API has no word for is set to something.
    """
    known = server.strategies[request.strategy] or frozenset()
    decoder = decoders.find(request.strategy)
    for param in decoder.params:
        value = resolved.values[param.name]
        if param.name not in known and value != _quiet(param) and param.name in request.values:
            raise RequestError(
                f"{param.title} cannot be told to {server.host}: OpenAI's API has no word for it; "
                f"set it back to {param.text(_quiet(param))}.",
                param.name,
            )
    # Many servers refuse a top_p of 0; the temperature says the same.
    cold = {p.name for p in decoder.params if p.name in known and p.greedy == resolved.values[p.name]}
    sent: dict[str, Any] = {"temperature": 0} if cold or decoder.takes_argmax else {}
    for name in sorted(known - cold - sent.keys()):
        value = resolved.values[name]
        if name in ("temperature", "top_p") or value:
            sent[name] = round(value, 6)
    return sent


def _quiet(param: Param) -> float:
    """The value at which a parameter does nothing."""
    return param.default if param.neutral is None else param.neutral


def _messages(request: Request) -> list[dict[str, str]]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    if isinstance(request.prompt, str):
        return [*system, {"role": "user", "content": request.prompt}]
    return [*system, *({"role": turn.role, "content": turn.content} for turn in request.prompt)]


def _started(run: int, request: Request, resolved: ResolvedParams, server: Server, path: str) -> Started:
    notices = []
    if ("chat" if "chat" in path else "completions") not in server.logprobs:
        notices.append(f"{server.host} tells no log-probabilities: there are no alternatives to look at.")
    used = [name for name in _UNCHECKED if resolved.values.get(name)]
    if used:
        notices.append(f"Whether {server.host} uses {' and '.join(used)} cannot be seen from here.")
    if request.control_tokens:
        notices.append(
            f"Whether {server.host} reads control tokens in a prompt as such cannot be seen from here."
        )
    if "chat" not in path:
        left = [
            name
            for name, said in (("system prompt", request.system), ("template variables", request.template))
            if said
        ]
        notices += [f"Outside a chat template there is no place for the {name}: left out." for name in left]
    if decoders.find(request.strategy).reads_checkpoint:
        notices.append(f"{server.host} samples as it likes: nothing was sent that says how.")
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
        notices=tuple(notices),
        model=server.title,
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What an event of a stream says.

    Attributes:
        tokens: New ones, if any.
        reason: Why the answer ended, if it has.
        count: Tokens of the answer as the server counts them, where it does.
    """

    tokens: list[Said]
    reason: FinishReason | None
    count: int | None


def _read(told: Any, host: str, vocabulary: Vocabulary) -> _Chunk:
    """Reads an event of a stream.

    Raises:
        WireError: it tells of an error, or is not what the API says it is.
    """
    try:
        if "error" in told:
            raise WireError(f"{host} broke off: {_message(told['error'])}")
        count = (told.get("usage") or {}).get("completion_tokens")
        choice: dict[str, Any] = next(iter(told.get("choices") or ()), {})
        end = choice.get("finish_reason")
        return _Chunk(
            list(_tokens(choice, vocabulary)),
            _REASONS.get(end, "done") if end else None,
            count if isinstance(count, int) else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"{host} sent a chunk that is none of OpenAI's API; is it such a server?") from error


def _tokens(choice: dict[str, Any], vocabulary: Vocabulary) -> Iterator[Said]:
    """A chunk's tokens. Where log-probabilities are told they say how many; else a chunk counts as one."""
    delta = choice.get("delta") or {}
    text = choice.get("text") or f"{delta.get('reasoning_content') or ''}{delta.get('content') or ''}"
    told = choice.get("logprobs") or {}
    entries = list(_chat_entries(told) if told.get("content") else _completion_entries(told))
    if not entries:
        if text:
            yield Said(vocabulary.number(text), text)
        return
    texts = _spread(text, [token for token, _, _ in entries])
    for part, (token, logp, top) in zip(texts, entries, strict=True):
        others = sorted(top.items(), key=lambda item: -item[1])
        numbered = tuple((vocabulary.number(other), value) for other, value in others)
        yield Said(vocabulary.number(token), part, logp, numbered)


def _chat_entries(told: dict[str, Any]) -> Iterator[tuple[str, float | None, dict[str, float]]]:
    """Tokens as chats tell them: text, log-probability, alternatives."""
    for entry in told["content"]:
        others = entry.get("top_logprobs") or ()
        found = {str(it["token"]): value for it in others if (value := number(it.get("logprob"))) is not None}
        yield str(entry["token"]), number(entry.get("logprob")), found


def _completion_entries(told: dict[str, Any]) -> Iterator[tuple[str, float | None, dict[str, float]]]:
    """The same as completions tell them, in lists side by side."""
    tokens = told.get("tokens") or []
    logps = told.get("token_logprobs") or [None] * len(tokens)
    tops = told.get("top_logprobs") or [None] * len(tokens)
    for token, logp, top in zip(tokens, logps, tops, strict=False):
        others = {
            str(key): found for key, value in (top or {}).items() if (found := number(value)) is not None
        }
        yield str(token), number(logp), others


def _spread(text: str, tokens: list[str]) -> list[str]:
    """A chunk's text over its tokens: as they spell it, else all of it with the last."""
    if "".join(tokens) == text:
        return tokens
    return [*[""] * (len(tokens) - 1), text]


def _message(error: Any) -> str:
    said = error.get("message") if isinstance(error, dict) else error
    return str(said)[:500]
