"""Runs one admitted request on the engine: to its end, or until it has started to decode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.engine import events
from edge_tui.serve.errors import of_failure

if TYPE_CHECKING:
    from fastapi import Request

    from edge_tui.engine import port
    from edge_tui.serve.dispatcher import QueueSlot
    from edge_tui.serve.response_accumulator import ResponseAccumulator


async def decode(
    slot: QueueSlot, request: port.Request, accumulator: ResponseAccumulator
) -> ResponseAccumulator:
    """Decodes a request to its end and returns the accumulator, which has taken its events.

    Raises:
        ApiError: the engine refused it, or failed.
    """
    async for batch in slot.run(replace(request, watched=False)):
        for event in batch:
            accumulator.add(event)
    if accumulator.failed is not None:
        raise of_failure(accumulator.failed)
    return accumulator


async def start(slot: QueueSlot, request: port.Request) -> AsyncIterator[list[events.Event]]:
    """Waits until the engine has accepted a request, so that a refusal has a status, and returns all events.

    The slot is released if it raises.

    Raises:
        ApiError: the engine refused it.
    """
    batches = slot.run(request)
    first: list[events.Event] = []
    try:
        async for batch in batches:
            first += batch
            for event in batch:
                if isinstance(event, events.Failed):
                    raise of_failure(event)
            if any(isinstance(event, events.Started | events.Finished) for event in batch):
                break
    except BaseException:
        slot.release()
        raise

    async def rest() -> AsyncIterator[list[events.Event]]:
        yield first
        if not isinstance(first[-1], events.Finished):
            async for batch in batches:
                yield batch

    return rest()


def client_id(request: Request) -> str:
    """Returns the client's address, which names it in the queue."""
    return request.client.host if request.client is not None else ""
