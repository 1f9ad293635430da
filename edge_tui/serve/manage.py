"""Serves `/models`: loads and unloads models, if the server was started with `--allow-model-management`.

A name must be on the list of this machine's models: a client can neither start a download nor make the server
read a folder of its choice.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from edge_tui.engine.port import ModelSpec
from edge_tui.serve.dispatcher import DEAD_ENGINE
from edge_tui.serve.errors import ApiError
from edge_tui.serve.schemas import Load, Unload
from edge_tui.serve.stream import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.config.settings import Settings
    from edge_tui.serve.dispatcher import Dispatcher

WAIT_SECONDS = 600.0
"""Longest wait for a model to be loaded or unloaded."""


def router(dispatcher: Dispatcher, settings: Settings, allowed: bool) -> APIRouter:
    """Returns the routes; each refuses if they are not allowed.

    Args:
        dispatcher: Gives the engine and its models.
        settings: Names the folders of models.
        allowed: True if the server was started with `--allow-model-management`.
    """
    routes = APIRouter(tags=["models"], prefix="/models")
    roles = dispatcher.roles
    change_lock = asyncio.Lock()
    """Serialises changes, so that each begins with the state that the last one has left."""

    def check() -> None:
        if not allowed:
            raise ApiError(
                403, "Models of this server are fixed; start it with --allow-model-management to change that."
            )

    @routes.get("", summary="Models on this machine, and those in memory")
    async def models() -> dict[str, Any]:
        check()
        from edge_tui.hub.listing import local_models

        listings = await asyncio.to_thread(local_models, settings.models.folders)
        return {
            "roles": {role: spec.name for role, spec in roles.specs.items()},
            "loaded": {role: asdict(loaded) for role, loaded in roles.loaded.items()},
            "available": [asdict(listing) for listing in listings],
        }

    @routes.post("/load", summary="Load a model")
    async def load(body: Load) -> dict[str, Any]:
        """Loads a model for a role; a model that fails gives way to the one before."""
        check()
        if body.name is not None:
            await asyncio.to_thread(_check_name, body.name, settings)
        async with change_lock:
            old = roles.specs[body.role]
            spec = ModelSpec(body.name or old.name, body.precision or old.precision, old.device, old.context)
            before = roles.assign_and_load(body.role, spec)
            await _wait_until(lambda: body.role in roles.loaded or body.role in roles.load_errors, dispatcher)
            if (loaded := roles.loaded.get(body.role)) is None:
                error = roles.load_errors[body.role]
                if spec != old:  # back to the model from before
                    roles.assign(before)
                    dispatcher.engine.load(body.role)
                raise ApiError(500, error, "name")
        return {"role": body.role, "loaded": asdict(loaded), "roles": list(before)}

    @routes.post("/unload", summary="Free a model's memory; it loads again on next use")
    async def unload(body: Unload) -> dict[str, Any]:
        check()
        async with change_lock:
            spec = roles.specs[body.role]
            dispatcher.engine.unload(body.role)
            await _wait_until(lambda: body.role not in roles.loaded, dispatcher)
            freed = [role for role, other in roles.specs.items() if other == spec]
        return {"role": body.role, "loaded": None, "roles": freed}

    return routes


def _check_name(name: str, settings: Settings) -> None:
    """Refuses a name that is not on the list of this machine's models.

    Raises:
        ApiError: there is no such model, or it cannot be used.
    """
    from edge_tui.hub.listing import local_models

    listing = {each.name: each for each in local_models(settings.models.folders)}.get(name)
    if listing is None:
        raise ApiError(
            404, f"There is no model {name!r} on this server; GET /models lists its models.", "name"
        )
    if listing.refusal:
        raise ApiError(422, listing.refusal, "name")


async def _wait_until(done: Callable[[], bool], dispatcher: Dispatcher) -> None:
    """Polls until a condition holds.

    Raises:
        ApiError: it takes too long, or the engine is gone.
    """
    try:
        await wait_until(lambda: done() or not dispatcher.engine.alive(), WAIT_SECONDS)
    except TimeoutError:
        raise ApiError(503, "The engine is busy; try again later.") from None
    if not dispatcher.engine.alive():
        raise ApiError(503, dispatcher.problem or DEAD_ENGINE)
