"""The application: one engine, its queue, and the routes in front of them."""

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
from edge_tui.machine.telemetry import Telemetry, first_gpu
from edge_tui.serve import errors, infer, manage, openai, schemas
from edge_tui.serve.dispatcher import Dispatcher
from edge_tui.serve.guard import Guard
from edge_tui.serve.request_builder import Asked
from edge_tui.serve.roles import Roles
from edge_tui.serve.shortcut import Shortcut, endpoints

if TYPE_CHECKING:
    from edge_tui.config.settings import Settings
    from edge_tui.engine.port import ModelSpec
    from edge_tui.serve.loop_notifier import LoopNotifier
    from edge_tui.serve.options import Options
    from edge_tui.serve.roles import Resident

DESCRIPTION = (
    "Decoding strategies of language models over HTTP. One request decodes at a time, the others wait in a "
    "bounded queue; beyond it the answer is 429 with Retry-After."
)
SAMPLE_SECONDS = 4.0
"""Longest that a sample of the machine is waited for, and its greatest age; a driver may never answer."""


class Server(FastAPI):
    """The application.

    Args:
        engine: Decodes; the caller closes it.
        bell: Rung by the engine when it has news.
        settings: Defaults of what requests leave out.
        options: Key, hosts and limits.

    Attributes:
        dispatcher: The queue before the engine.
        settings: As given.
        limits: The options.
        sampler: Looks at the machine, once somebody has asked about it.
    """

    def __init__(self, engine: Resident, bell: LoopNotifier, settings: Settings, options: Options) -> None:
        super().__init__(
            title="edge-tui",
            version=__version__,
            description=DESCRIPTION,
            lifespan=_lifespan,
            docs_url=None,  # its page would fetch scripts from elsewhere
            redoc_url=None,
        )
        roles = Roles(engine, settings.specs())
        self.dispatcher = Dispatcher(engine, roles, bell, options.queue, options.seconds)
        self.settings = settings
        self.limits = options
        asked = Asked(settings, options)
        errors.install(self)
        decoding = infer.router(self.dispatcher, asked), openai.router(self.dispatcher, asked, options)
        for routes in decoding:
            self.include_router(routes)
        self.include_router(manage.router(self.dispatcher, settings, options.manage))
        self.sampler = Telemetry(first_gpu(settings.device))
        self.get("/machine", tags=["server"], summary="What this machine has, and how much of it is in use")(
            self.machine
        )
        self.get("/about", tags=["server"], summary="What this server can do")(self.about)
        self.get("/health", tags=["server"], summary="Whether a request would be decoded")(self.health)
        self.add_middleware(Shortcut, endpoints=endpoints(*decoding))
        self.add_middleware(Guard, options=options)

    def openapi(self) -> dict[str, Any]:
        """The document, with every strategy's parameters; strategies may come and go, so it is made anew."""
        self.openapi_schema = None
        return schemas.describe(super().openapi())

    async def health(self) -> JSONResponse:
        """200 when the engine can decode, else 503; with what is loaded and how long the queue is."""
        state = self.dispatcher
        said = {
            "status": _status(state),
            "server": "edge-tui",
            "version": __version__,
            "model": state.roles.name if "model" in state.roles.loaded else None,
            "running": state.running,
            "queue": {"length": state.waiting, "limit": state.limit},
        }
        if state.problem:
            said["problem"] = state.problem
        return JSONResponse(said, 200 if state.ready and not state.closing else 503)

    async def about(self) -> dict[str, Any]:
        """What a remote edge-tui needs to know: strategies, limits, models in memory."""
        return {
            "server": "edge-tui",
            "version": __version__,
            "status": _status(self.dispatcher),
            "strategies": [decoder.name for decoder in decoders.strategies()],
            "manage": self.limits.manage,
            "limits": {"tokens": self.limits.tokens, "rows": self.limits.rows},
            "loaded": {role: asdict(loaded) for role, loaded in self.dispatcher.roles.loaded.items()},
        }

    async def machine(self) -> dict[str, Any]:
        """A sample of processor, memory and GPU, a second old or so; the first request begins to sample."""
        main = self.dispatcher.roles.loaded.get("model")
        if main is not None and main.device.startswith("cuda"):
            self.sampler.watch(main.device)
        self.sampler.start()
        began = time.monotonic()
        while (sample := self.sampler.latest()) is None or began - sample.time > SAMPLE_SECONDS:
            if time.monotonic() - began > SAMPLE_SECONDS:
                raise errors.ApiError(503, "The GPU's driver does not answer; try again later.")
            await asyncio.sleep(0.02)
        told = asdict(sample)
        del told["time"]  # of this machine's own clock
        return told


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
    """Keeps the engine's news flowing as long as the server runs."""
    assert isinstance(app, Server)
    pump = asyncio.create_task(app.dispatcher.serve())
    pump.add_done_callback(app.dispatcher.collapse)
    app.dispatcher.roles.start(_roles(app.settings))
    yield
    pump.cancel()
    app.sampler.stop()


def _roles(settings: Settings) -> list[str]:
    """The main model's role, and those that the strategy needs other models for."""
    specs = settings.specs()
    first: dict[ModelSpec, str] = {}
    for role in ("model", *decoders.find(settings.strategy).roles):
        if role in specs:
            first.setdefault(specs[role], role)
    return list(first.values())
