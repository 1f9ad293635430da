"""What a server can do: two tables, and a probe that finds out which holds.

That a server answers 200 does not prove that it used a field: some ignore what they do not know. So what is
not part of an API that all of its servers share is not offered, and what can be seen (whether
log-probabilities come back, whether there is a chat template) is looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.core.declaration import OPENAI_PARAMS
from edge_tui.engine.remote.wire import WireError

if TYPE_CHECKING:
    from edge_tui.engine.remote.wire import Wire

ALTERNATIVES = 5
"""Alternatives that are asked of other servers: what the oldest of their APIs allows."""
PROBE_SECONDS = 120.0
"""Longest wait for a single token: the model may have to be loaded first."""


def openai_strategies() -> dict[str, frozenset[str]]:
    """Lists the strategies that OpenAI's API can express, with the parameters that it has names for.

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
class Server:
    """A server as it was found.

    Attributes:
        host: Its address, for sentences.
        ours: Whether it is an `edge-tui serve`.
        strategies: Strategies by name with the parameters that reach it; None is every parameter.
        model: Name of the model to ask for; "" asks for none.
        title: Name of the model that answers, which some servers write differently.
        context: Context limit in tokens, 0 where it says none.
        completions: Whether it continues raw text.
        chat: Whether it answers conversations.
        logprobs: Endpoints ("completions", "chat") that tell log-probabilities.
        manage: Whether it lets clients load and unload models.
        loaded: Of ours: what it says of each model in its memory, by role.
    """

    host: str
    ours: bool
    strategies: Mapping[str, frozenset[str] | None]
    model: str = ""
    title: str = ""
    context: int = 0
    completions: bool = True
    chat: bool = True
    logprobs: frozenset[str] = frozenset()
    manage: bool = False
    loaded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def refusal(self, strategy: str) -> str:
        """Why it cannot run a strategy, one sentence; "" if it can."""
        if strategy in self.strategies:
            return ""
        if self.ours:
            return f"The server at {self.host} does not have the strategy {strategy}."
        return f"{strategy} is not part of OpenAI's API, which is all that {self.host} is known to speak."


async def probe(wire: Wire, model: str) -> Server:
    """Finds out what a server is.

    Args:
        wire: The connection.
        model: Name to ask for where the server is not ours; "" takes the first that it lists, or none.

    Raises:
        WireError: it cannot be reached, wants another key, or continues nothing.
    """
    deadline = time.monotonic() + PROBE_SECONDS
    while True:
        try:
            about = await wire.get("/about")
        except WireError as error:
            if error.status in (0, 401, 403):
                raise
            about = None
        if not isinstance(about, dict) or about.get("server") != "edge-tui":
            return await _other(wire, model)
        if about.get("status") != "loading" or time.monotonic() > deadline:
            return _ours(wire, about)
        await asyncio.sleep(0.2)


def _ours(wire: Wire, about: dict[str, Any]) -> Server:
    loaded = about.get("loaded")
    loaded = loaded if isinstance(loaded, dict) else {}
    main = loaded.get("model", {})
    return Server(
        host=wire.host,
        ours=True,
        strategies={str(name): None for name in about.get("strategies", [])},
        title=str(main.get("name", "")),
        context=int(main.get("context", 0)),
        logprobs=frozenset({"completions", "chat"}),
        manage=about.get("manage") is True,
        loaded=loaded,
    )


async def _other(wire: Wire, model: str) -> Server:
    context = 0
    try:
        listed = (await wire.get("/v1/models"))["data"]
        entries = [each for each in listed if not model or each["id"] == model]
        if entries:
            model, context = str(entries[0]["id"]), _limit(entries[0])
    except (WireError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, WireError) and error.status in (401, 403):
            raise
    named = {"model": model} if model else {}
    common = {**named, "max_tokens": 1, "temperature": 0}
    completions = await _attempt(
        wire, "/v1/completions", {**common, "prompt": "The"}, {"logprobs": ALTERNATIVES}
    )
    chat = await _attempt(
        wire,
        "/v1/chat/completions",
        {**common, "messages": [{"role": "user", "content": "The"}]},
        {"logprobs": True, "top_logprobs": ALTERNATIVES},
    )
    if isinstance(completions, WireError) and isinstance(chat, WireError):
        raise WireError(f"{wire.host} decodes nothing: {completions}", completions.status)
    found = {"completions": completions, "chat": chat}
    return Server(
        host=wire.host,
        ours=False,
        strategies=openai_strategies(),
        model=model,
        title=model or _model_of(completions) or _model_of(chat),
        context=context,
        completions=not isinstance(completions, WireError),
        chat=not isinstance(chat, WireError),
        logprobs=frozenset(name for name, answer in found.items() if _has_logprobs(answer)),
    )


async def _attempt(wire: Wire, path: str, body: dict[str, Any], logprobs: dict[str, Any]) -> Any:
    """The answer to one token's request; asked again without log-probabilities if they are refused."""
    refused = WireError("")
    for more in (logprobs, {}):
        try:
            answer = await wire.post(path, {**body, **more}, PROBE_SECONDS)
        except WireError as error:
            refused = error
            if error.status in (0, 404, 405):
                break
        else:
            if isinstance(answer, dict) and answer.get("choices"):
                return answer
            refused = WireError(f"{wire.host} answers {path} with something else.")
    return refused


def _has_logprobs(answer: Any) -> bool:
    """Whether an answer tells a log-probability for its token."""
    try:
        told = answer["choices"][0].get("logprobs") or {}
        return bool(told.get("content") or told.get("token_logprobs"))
    except (LookupError, TypeError, AttributeError):
        return False


def _model_of(answer: Any) -> str:
    return str(answer.get("model") or "") if isinstance(answer, dict) else ""


def _limit(entry: dict[str, Any]) -> int:
    """The context limit, under the names that servers give it."""
    meta = entry.get("meta")
    inner = meta.get("n_ctx_train") if isinstance(meta, dict) else None
    for value in (entry.get("max_model_len"), entry.get("context_length"), inner):
        if isinstance(value, int) and value > 0:
            return value
    return 0
