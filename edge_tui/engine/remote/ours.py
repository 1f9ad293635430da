"""A run on a server of ours: its events, handed on as if they had happened here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from edge_tui.engine.events import (
    Event,
    Failed,
    Finished,
    FirstToken,
    Noticed,
    ParamChanged,
    Progress,
    Ranked,
    Resolved,
    Started,
)
from edge_tui.engine.remote.batches import of_columns
from edge_tui.engine.remote.wire import WireError

if TYPE_CHECKING:
    from edge_tui.engine.port import Request
    from edge_tui.engine.remote.vocabulary import Vocabulary
    from edge_tui.engine.remote.wire import Wire

Post = Callable[[Event], None]


async def decode(
    run: int,
    request: Request,
    wire: Wire,
    vocabulary: Vocabulary,
    post: Post,
    named: Callable[[str], None],
) -> None:
    """Decodes one request there.

    Args:
        run: Its number here.
        request: What to decode.
        wire: The server.
        vocabulary: Learns the texts of ids.
        post: Where events go.
        named: Told the run's name there, by which parameters are turned.

    Raises:
        WireError: the server refused or broke off.
    """
    columns = 0
    async with aclosing(wire.events("/infer/stream", body_of(request))) as events:
        async for kind, told in events:
            try:
                if kind == "start":
                    named(str(told["id"]))
                    started = _started(run, told, request.sources)
                    columns = len(started.columns)
                    post(started)
                elif kind == "tokens":
                    vocabulary.learn(*told["pieces"])
                    post(of_columns(run, told, columns))
                elif kind == "end":
                    post(_finished(run, told))
                    return
                elif kind == "error":
                    error = told["error"]
                    post(
                        Failed(
                            str(error["message"]),
                            run,
                            str(error.get("param") or ""),
                            code=str(error.get("code") or "error"),
                        )
                    )
                    return
                elif (event := _other(run, kind, told)) is not None:
                    post(event)
            except (LookupError, TypeError, ValueError) as error:
                raise WireError(
                    f"{wire.host} speaks another edge-tui's language ({kind}): run the same version."
                ) from error
    raise WireError(f"The connection to {wire.host} ended early; what came so far is kept.")


def body_of(request: Request) -> dict[str, Any]:
    """A request as the server takes it."""
    prompt: Any = request.prompt
    if request.ids:
        prompt = list(request.ids)
    elif not isinstance(prompt, str):
        prompt = [{"role": turn.role, "content": turn.content} for turn in prompt]
    body = {
        "prompt": prompt,
        "max_length": request.max_length,
        "strategy": request.strategy,
        "params": dict(request.values),
        "mode": request.mode,
        "seed": request.seed,
        "stop": list(request.stop),
        "n": request.samples,
        "chat": request.chat,
        "system": request.system,
        "control_tokens": request.control_tokens,
        "prefix": list(request.prefix),
        "format": "columns",
    }
    # An older server refuses fields that it does not know.
    return body | {"chat_template_kwargs": dict(request.template)} if request.template else body


def _started(run: int, told: dict[str, Any], sources: Mapping[str, str]) -> Started:
    """What the server says; values that were set here come from where they were set here."""
    return Started(
        run=run,
        strategy=str(told["strategy"]),
        rows=int(told["rows"]),
        columns=tuple(map(str, told["columns"])),
        prompt_tokens=int(told["prompt_tokens"]),
        prefix_tokens=int(told["prefix_tokens"]),
        reused_tokens=int(told["reused_tokens"]),
        max_new_tokens=int(told["max_new_tokens"]),
        seed=int(told["seed"]),
        values={
            str(name): Resolved(it["value"], sources.get(name, str(it["source"])))
            for name, it in told["params"].items()
        },
        notices=tuple(map(str, told["notices"])),
        thinking=told["thinking"] is True,
        control_tokens=tuple(map(str, told.get("control_tokens", ()))),
        end_ids=tuple(map(int, told.get("end_ids", ()))),
        kept_texts=tuple(map(str, told.get("kept_texts", ()))),
        model=str(told.get("model", "")),
    )


def _finished(run: int, told: dict[str, Any]) -> Finished:
    ranked = tuple(
        Ranked(tuple(map(int, it["tokens"])), str(it["text"]), float(it["score"])) for it in told["ranked"]
    )
    best = ranked[0] if ranked else None
    return Finished(
        run=run,
        reason=told["reason"],
        new_tokens=int(told["new_tokens"]),
        time_to_first_token=float(told["time_to_first_token"]),
        seconds=float(told["seconds"]),
        answer=best.tokens if best else None,
        answer_text=best.text if best else None,
        score=best.score if best else None,
        peak_bytes=told["peak_bytes"],
        tail=str(told["tail"]),
        reasons=tuple(told["reasons"]),
        tails=tuple(map(str, told["tails"])),
        ranked=ranked,
    )


def _other(run: int, kind: str, told: dict[str, Any]) -> Event | None:
    """Events that say one small thing; unknown ones come from a newer server and are passed over."""
    if kind == "first":
        return FirstToken(run, float(told["seconds"]))
    if kind == "change":
        return ParamChanged(
            run, str(told["name"]), float(told["value"]), int(told["version"]), int(told["index"])
        )
    if kind == "notice":
        return Noticed(run, str(told["message"]))
    if kind == "progress":
        what: Literal["load", "prefill"] = "load" if told["what"] == "load" else "prefill"
        return Progress(what, int(told["done"]), int(told["total"]), str(told["name"]), run)
    return None
