"""Assembles the application: the engine, its queue, the routes, and the checks before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from edge_tui import __version__, decoders
from edge_tui.machine.telemetry import Telemetry, gpus_of
from edge_tui.serve import errors, explain, infer, manage, openai, openapi
from edge_tui.serve.dispatcher import Dispatcher, LoopNotifier
from edge_tui.serve.request_builder import RequestBuilder
from edge_tui.serve.request_checks import RequestChecks
from edge_tui.serve.roles import Roles

if TYPE_CHECKING:
    from edge_tui.config.settings import Settings
    from edge_tui.engine.port import ModelSpec
    from edge_tui.serve.options import Options
    from edge_tui.serve.roles import ServedEngine

DESCRIPTION = (
    "Decoding strategies of language models over HTTP. One request decodes at a time, the others wait in a "
    "bounded queue; beyond it the answer is 429 with Retry-After."
)
SAMPLE_SECONDS = 4.0
"""Longest wait for a sample of the machine, and its greatest age; a driver may never answer."""


class ServerApp(FastAPI):
    """Routes HTTP requests to one engine.

    Args:
        engine: Decodes; the caller closes it.
        notifier: Notified by the engine when it has events.
        settings: Defaults of fields that requests leave out.
        options: Key, hosts and limits.

    Attributes:
        dispatcher: The queue before the engine.
        settings: The settings.
        sampler: Samples the machine's load from the first request for it on.
    """

    def __init__(
        self, engine: ServedEngine, notifier: LoopNotifier, settings: Settings, options: Options
    ) -> None:
        super().__init__(
            title="edge-tui",
            version=__version__,
            description=DESCRIPTION,
            lifespan=_lifespan,
            exception_handlers=errors.HANDLERS,
            docs_url=None,  # its page would fetch scripts from elsewhere
            redoc_url=None,
        )
        roles = Roles(engine, settings.specs())
        self.dispatcher = Dispatcher(engine, roles, notifier, options.queue, options.seconds)
        self.settings = settings
        self._options = options
        builder = RequestBuilder(settings, options)
        self.include_router(infer.router(self.dispatcher, builder))
        self.include_router(explain.router(self.dispatcher, builder))
        self.include_router(openai.router(self.dispatcher, builder, options))
        self.include_router(manage.router(self.dispatcher, settings, options.manage))
        self.sampler = Telemetry(settings.device)
        self.get("/machine", tags=["server"], summary="Load of the processor, memory and GPU")(self.machine)
        self.get("/about", tags=["server"], summary="Strategies, stages, limits and models")(self.about)
        self.get("/health", tags=["server"], summary="Tell whether a request would be decoded")(self.health)
        self.add_middleware(RequestChecks, options=options)

    def openapi(self) -> dict[str, Any]:
        """Builds the OpenAPI document, anew each time, because strategies come and go."""
        self.openapi_schema = None
        return openapi.describe(super().openapi())

    async def health(self) -> JSONResponse:
        """Answers 200 if the engine can decode, else 503; with the model and the queue's length."""
        state = self.dispatcher
        body = {
            "status": _status(state),
            "server": "edge-tui",
            "version": __version__,
            "model": state.roles.name if "model" in state.roles.loaded else None,
            "running": state.running,
            "queue": {"length": state.waiting, "limit": state.limit},
        }
        if state.problem:
            body["problem"] = state.problem
        return JSONResponse(body, 200 if state.ready and not state.closing else 503)

    async def about(self) -> dict[str, Any]:
        """Lists strategies, stages of chains, limits and models in memory, for a remote edge-tui."""
        return {
            "server": "edge-tui",
            "version": __version__,
            "status": _status(self.dispatcher),
            "strategies": [decoder.name for decoder in decoders.strategies()],
            "stages": [stage.name for stage in decoders.current().stages()],
            "manage": self._options.manage,
            "explains": True,
            "encodes": True,
            "limits": {"tokens": self._options.tokens, "rows": self._options.rows},
            "loaded": {role: asdict(loaded) for role, loaded in self.dispatcher.roles.loaded.items()},
        }

    async def machine(self) -> dict[str, Any]:
        """Returns a sample of the machine's load, at most 4 s old; the first request starts sampling."""
        loaded = self.dispatcher.roles.loaded
        if gpus := gpus_of(loaded[role] for role in ("model", *loaded) if role in loaded):
            self.sampler.watch(*gpus)
        self.sampler.start()
        start = time.monotonic()
        while (sample := self.sampler.latest()) is None or start - sample.time > SAMPLE_SECONDS:
            if time.monotonic() - start > SAMPLE_SECONDS:
                raise errors.ApiError(503, "The GPU's driver does not answer; try again later.")
            await asyncio.sleep(0.02)
        body = asdict(sample)
        del body["time"]  # of this machine's own clock
        return body


def _status(state: Dispatcher) -> str:
    if state.closing:
        return "closing"
    if state.ready:
        return "ok"
    if not state.engine.alive() or state.problem:
        return "failed"
    return "loading" if state.roles.loading else "unloaded"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Pumps the engine's events as long as the server runs."""
    assert isinstance(app, ServerApp)
    pump = asyncio.create_task(app.dispatcher.pump())
    app.dispatcher.roles.start(_required_roles(app.settings))
    yield
    pump.cancel()
    app.sampler.stop()


def _required_roles(settings: Settings) -> list[str]:
    """Returns the main model's role, and those for which the strategy needs other models."""
    specs = settings.specs()
    first: dict[ModelSpec, str] = {}
    for role in ("model", *decoders.find(settings.strategy).roles):
        if role in specs:
            first.setdefault(specs[role], role)
    return list(first.values())
