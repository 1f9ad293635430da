"""Probes a server's capabilities: strategies, endpoints, log-probabilities, models.

That a server answers 200 does not prove that it used a field: some ignore what they do not know. So what is
not part of an API that all of its servers share is not offered, and two requests of one token show whether
log-probabilities come back and whether there is a chat template.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.core.declaration import OPENAI_PARAMS
from edge_tui.decoders.registry.chain_text import is_chain, names_in
from edge_tui.engine.remote.http_client import RemoteError

if TYPE_CHECKING:
    from edge_tui.engine.remote.http_client import HttpClient

ALTERNATIVES = 5
"""Number of alternatives requested from OpenAI servers: the most that the oldest of them allow."""
PROBE_SECONDS = 120.0
"""Longest wait for a single token: the model may have to be loaded first."""


def openai_strategies() -> dict[str, frozenset[str]]:
    """Lists the strategies that OpenAI's API can express, with the parameters that it has.

    A strategy that reads the checkpoint's settings sends none, which leaves the choice to the server.
    """
    return {
        decoder.name: frozenset()
        if decoder.reads_checkpoint
        else frozenset(param.name for param in decoder.params if param.name in OPENAI_PARAMS)
        for decoder in decoders.strategies()
        if decoder.openai
    }


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Describes a server as `probe` found it.

    Attributes:
        host: Its address, for messages.
        is_edge_tui: True for an `edge-tui serve`.
        strategies: Strategies by name with the parameters that it takes; None is every parameter.
        model: Name of the model to request; "" names none.
        title: Name of the model that answers, which some servers spell differently.
        context: Context limit in tokens; 0 if unknown.
        completions: True if it continues raw text.
        chat: True if it answers conversations.
        logprobs: Endpoints ("completions", "chat") that send log-probabilities.
        manage: True if clients may load and unload models.
        loaded: Description of each model in its memory, by role; only of an edge-tui.
        stages: Stages of chains that it has; only of an edge-tui.
        explains: True if it says why a token was taken.
        encodes: True if it turns a text into ids.
    """

    host: str
    is_edge_tui: bool
    strategies: Mapping[str, frozenset[str] | None]
    model: str = ""
    title: str = ""
    context: int = 0
    completions: bool = True
    chat: bool = True
    logprobs: frozenset[str] = frozenset()
    manage: bool = False
    loaded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stages: frozenset[str] = frozenset()
    explains: bool = False
    encodes: bool = False

    def refusal(self, strategy: str) -> str:
        """Returns why it cannot run a strategy, one sentence; "" if it can."""
        if strategy in self.strategies:
            return ""
        if self.is_edge_tui:
            inner, stages = names_in(strategy)
            missing = [name for name in stages if name not in self.stages]
            if (is_chain(strategy) or strategy in self.stages) and (not inner or inner in self.strategies):
                return f"The server at {self.host} does not have the stage {missing[0]}." if missing else ""
            return f"The server at {self.host} does not have the strategy {strategy}."
        return f"{strategy} is not part of OpenAI's API, which {self.host} speaks."

    @property
    def explain_refusal(self) -> str:
        """Why it explains no token, one sentence; "" if it does."""
        if self.explains:
            return ""
        if self.is_edge_tui:
            return f"The edge-tui at {self.host} explains no token: a newer one does."
        return f"{self.host} speaks OpenAI's API, which tells too little of a token to explain it."

    @property
    def encode_refusal(self) -> str:
        """Why it turns no text into tokens, one sentence; "" if it does."""
        if self.encodes:
            return ""
        if self.is_edge_tui:
            return f"The edge-tui at {self.host} turns no text into tokens: a newer one does."
        return f"{self.host} speaks OpenAI's API, which turns no text into tokens."


async def probe(client: HttpClient, model: str) -> ServerInfo:
    """Returns a server's capabilities.

    Args:
        client: The connection.
        model: Name to request where the server is no edge-tui; "" takes the first that it lists, or none.

    Raises:
        RemoteError: it cannot be reached, needs another key, or decodes nothing.
    """
    deadline = time.monotonic() + PROBE_SECONDS
    while True:
        try:
            about = await client.get("/about")
        except RemoteError as error:
            if error.status in (0, 401, 403):
                raise
            about = None
        if not isinstance(about, dict) or about.get("server") != "edge-tui":
            return await _openai_info(client, model)
        if about.get("status") != "loading" or time.monotonic() > deadline:
            return _edge_tui_info(client, about)
        await asyncio.sleep(0.2)


def _edge_tui_info(client: HttpClient, about: dict[str, Any]) -> ServerInfo:
    loaded = about.get("loaded")
    loaded = loaded if isinstance(loaded, dict) else {}
    main = loaded.get("model", {})
    return ServerInfo(
        host=client.host,
        is_edge_tui=True,
        strategies={str(name): None for name in about.get("strategies", [])},
        title=str(main.get("name", "")),
        context=int(main.get("context", 0)),
        logprobs=frozenset({"completions", "chat"}),
        manage=about.get("manage") is True,
        loaded=loaded,
        stages=frozenset(map(str, about.get("stages", []))),
        explains=about.get("explains") is True,
        encodes=about.get("encodes") is True,
    )


async def _openai_info(client: HttpClient, model: str) -> ServerInfo:
    """Probes an OpenAI server: its model, its context, and the fields that it takes."""
    context = 0
    try:
        listed = (await client.get("/v1/models"))["data"]
        entries = [each for each in listed if not model or each["id"] == model]
        if entries:
            model, context = str(entries[0]["id"]), _context_limit(entries[0])
    except (RemoteError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RemoteError) and error.status in (401, 403):
            raise
    body = {**({"model": model} if model else {}), "max_tokens": 1, "temperature": 0}
    raw = {**body, "prompt": "The"}
    turns = {**body, "messages": [{"role": "user", "content": "The"}]}
    numbers = {"logprobs": True, "top_logprobs": ALTERNATIVES}
    found = {
        "completions": await _attempt(client, "/v1/completions", raw, {"logprobs": ALTERNATIVES}),
        "chat": await _attempt(client, "/v1/chat/completions", turns, numbers),
    }
    answers = {name: answer for name, answer in found.items() if not isinstance(answer, RemoteError)}
    if not answers:
        refused = found["completions"]
        raise RemoteError(f"{client.host} decodes nothing: {refused}", refused.status)
    return ServerInfo(
        host=client.host,
        is_edge_tui=False,
        strategies=openai_strategies(),
        model=model,
        title=model or next((str(name) for each in answers.values() if (name := each.get("model"))), ""),
        context=context,
        completions="completions" in answers,
        chat="chat" in answers,
        logprobs=frozenset(name for name, answer in answers.items() if _has_logprobs(answer)),
    )


async def _attempt(client: HttpClient, path: str, body: dict[str, Any], logprobs: dict[str, Any]) -> Any:
    """Requests one token, at last without log-probabilities; returns the answer or the error."""
    refused = RemoteError("")
    for more in (logprobs, {}):
        try:
            answer = await client.post(path, {**body, **more}, PROBE_SECONDS)
        except RemoteError as error:
            refused = error
            if error.status in (0, 404, 405):
                break
        else:
            if isinstance(answer, dict) and answer.get("choices"):
                return answer
            refused = RemoteError(f"{client.host} answers {path} with something else.")
    return refused


def _has_logprobs(answer: Any) -> bool:
    """Tells whether an answer has a log-probability for its token."""
    try:
        logprobs = answer["choices"][0].get("logprobs") or {}
        return bool(logprobs.get("content") or logprobs.get("token_logprobs"))
    except (LookupError, TypeError, AttributeError):
        return False


def _context_limit(entry: dict[str, Any]) -> int:
    """Returns the context limit, under any of the names that servers give it."""
    meta = entry.get("meta")
    inner = meta.get("n_ctx_train") if isinstance(meta, dict) else None
    for value in (entry.get("max_model_len"), entry.get("context_length"), inner):
        if isinstance(value, int) and value > 0:
            return value
    return 0
