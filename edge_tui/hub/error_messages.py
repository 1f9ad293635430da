"""What went wrong with the hub, in one sentence each: the thing, the limit, the way out."""

from __future__ import annotations

import errno
import os
from urllib.parse import urlsplit

from edge_tui.engine.checkpoints.locate import cache_root
from edge_tui.engine.checkpoints.weight_files import CheckpointError
from edge_tui.util.format import size

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoom(Exception):
    """The disk cannot hold what is to be fetched."""

    def __init__(self, need: int, free: int) -> None:
        super().__init__(need, free)
        self.need = need
        self.free = free


def host() -> str:
    """The hub's name, without what a URL could hold beside it."""
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "the hub"


def sentence(error: BaseException, repository: str) -> str:
    """What the user reads. Errors' own texts are left out: they hold URLs, and those may hold secrets."""
    if isinstance(error, NoRoom):
        return (
            f"{repository} needs {size(error.need)} more, but only {size(error.free)} are free "
            f"in {cache_root()}: make room, or set HF_HUB_CACHE to another disk."
        )
    if isinstance(error, CheckpointError):
        return str(error)
    for each in _chain(error):
        if said := _known(each, repository):
            return said
    return f"{repository} could not be fetched from {host()} ({type(error).__name__}): try again later."


def _known(error: BaseException, repository: str) -> str:
    name = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if name == "GatedRepoError":
        return (
            f"{repository} is gated: accept its terms on https://{host()}/{repository} and set HF_TOKEN to a "
            "token of that account."
        )
    if name == "OfflineModeIsEnabled":
        return f"{repository} cannot be fetched because HF_HUB_OFFLINE forbids it: unset HF_HUB_OFFLINE."
    if name == "DisabledRepoError":
        return f"{repository} was disabled on {host()}: choose another model."
    if name == "HFValidationError":
        return f"{repository!r} is not a repository id: write one like Qwen/Qwen2.5-0.5B-Instruct."
    if name == "RepositoryNotFoundError" and status == 401:
        return (
            f"{host()} shows no {repository} to people without a token: check the spelling, or set "
            "HF_TOKEN if it is private."
        )
    if status == 404:
        return f"There is no {repository} on {host()}: check the spelling."
    if status in (401, 403):
        return f"{host()} refuses the token for {repository} ({status}): set HF_TOKEN to one that may."
    if status == 429:
        return f"{host()} has had too many requests from here: wait a minute, or set HF_TOKEN."
    if isinstance(status, int):
        return f"{host()} answered {status} for {repository}: try again later."
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"The disk is full at {cache_root()}: make room, or set HF_HUB_CACHE to another disk."
    if isinstance(error, PermissionError):
        return f"{cache_root()} cannot be written to: set HF_HUB_CACHE to a folder that can."
    transport = {"TransportError", "ConnectionError", "NetworkError", "TimeoutException", "Timeout"}
    if transport & {base.__name__ for base in type(error).__mro__}:
        return f"{host()} cannot be reached: check the network, or set HF_ENDPOINT to a mirror."
    return ""


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
