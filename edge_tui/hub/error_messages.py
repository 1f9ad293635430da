"""Gives each failure of the hub a code and a sentence."""

from __future__ import annotations

import errno
import os
from urllib.parse import urlsplit

from edge_tui.engine.checkpoints.locate import cache_root
from edge_tui.util.formatting import size

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSPORT = {"TransportError", "ConnectionError", "NetworkError", "TimeoutException", "Timeout"}
"""Classes of errors in the libraries that huggingface_hub has used for HTTP."""
_CODES = {
    "DiskTooSmall": "no_room",
    "GatedRepoError": "gated",
    "OfflineModeIsEnabled": "offline",
    "DisabledRepoError": "disabled",
    "HFValidationError": "no_id",
}
"""Codes by the name of the error's class, most of them huggingface_hub's."""
_STATUSES = {401: "refused", 403: "refused", 404: "not_found", 429: "too_many"}
_SENTENCES = {
    "gated": "{name} is gated: accept its terms on https://{host}/{name} and set HF_TOKEN to a token of that "
    "account.",
    "offline": "{name} cannot be fetched because HF_HUB_OFFLINE forbids it: unset HF_HUB_OFFLINE.",
    "disabled": "{name} was disabled on {host}: choose another model.",
    "no_id": "{name!r} is not a repository id: write one like Qwen/Qwen2.5-0.5B-Instruct.",
    "hidden": "{host} shows no {name} to people without a token: check the spelling, or set HF_TOKEN if it "
    "is private.",
    "not_found": "There is no {name} on {host}: check the spelling.",
    "refused": "{host} refuses the token for {name} ({status}): set HF_TOKEN to one that may.",
    "too_many": "{host} has had too many requests from here: wait a minute, or set HF_TOKEN.",
    "status": "{host} answered {status} for {name}: try again later.",
    "no_room": "{name} needs {need} more, but only {free} are free in {cache}: make room, or set "
    "HF_HUB_CACHE to another disk.",
    "disk_full": "The disk is full at {cache}: make room, or set HF_HUB_CACHE to another disk.",
    "read_only": "{cache} cannot be written to: set HF_HUB_CACHE to a folder that can.",
    "unreachable": "{host} cannot be reached: check the network, or set HF_ENDPOINT to a mirror.",
    "unknown": "{name} could not be fetched from {host} ({kind}): try again later.",
}


class DiskTooSmall(Exception):
    """Refuses a download that the disk cannot hold; its arguments are the bytes it needs and those free."""


def describe(error: BaseException, name: str) -> tuple[str, str]:
    """Returns the code of an error and the sentence about a repository: the thing, the limit, the way out.

    The code is the error's, or that of the first error that it came from and that has one. Errors' own texts
    are left out: they hold URLs, and those may hold secrets.
    """
    code, status = "", 0
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while not code and cause is not None and cause not in causes:
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        code = _code(cause, status)
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    code = code or "unknown"
    need, free = map(size, error.args) if isinstance(error, DiskTooSmall) else ("", "")
    facts = {"host": _host(), "cache": cache_root(), "status": status, "kind": type(error).__name__}
    return code, _SENTENCES[code].format(name=name, need=need, free=free, **facts)


def _code(error: BaseException, status: int) -> str:
    name = type(error).__name__
    if name in _CODES:
        return _CODES[name]
    if name == "RepositoryNotFoundError" and status == 401:
        return "hidden"
    if status:
        return _STATUSES.get(status, "status")
    if isinstance(error, OSError) and error.errno in _FULL:
        return "disk_full"
    if isinstance(error, PermissionError):
        return "read_only"
    return "unreachable" if _TRANSPORT & {base.__name__ for base in type(error).__mro__} else ""


def _host() -> str:
    """Returns the hub's name, without what a URL could hold beside it."""
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "the hub"
