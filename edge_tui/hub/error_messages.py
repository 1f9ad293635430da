"""Gives each failure of the hub a code, which crosses a pipe, and each code a sentence."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from edge_tui.engine.checkpoints.locate import cache_root
from edge_tui.util.formatting import size

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSPORT = {"TransportError", "ConnectionError", "NetworkError", "TimeoutException", "Timeout"}
"""Classes of errors in the libraries that huggingface_hub has used for HTTP."""
_CODES = {
    "GatedRepoError": "gated",
    "OfflineModeIsEnabled": "offline",
    "DisabledRepoError": "disabled",
    "HFValidationError": "no_id",
}
"""Codes by the name of huggingface_hub's class."""
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
    """Refuses a download that the disk cannot hold."""

    def __init__(self, need: int, free: int) -> None:
        super().__init__()
        self.failure = Failure("no_room", need=need, free=free)


@dataclass(frozen=True, slots=True)
class Failure:
    """Holds a failure as JSON.

    Attributes:
        code: A key of the sentences.
        status: Of the HTTP response, 0 without one.
        need: Bytes that are to be fetched.
        free: Bytes that the disk has.
        kind: The error's class.
    """

    code: str
    status: int = 0
    need: int = 0
    free: int = 0
    kind: str = ""

    def sentence(self, name: str) -> str:
        """Writes the sentence about a repository: the thing, the limit, the way out.

        Errors' own texts are left out: they hold URLs, and those may hold secrets.
        """
        facts = {**asdict(self), "need": size(self.need), "free": size(self.free)}
        return _SENTENCES[self.code].format(name=name, host=_host(), cache=cache_root(), **facts)


def classify(error: BaseException) -> Failure:
    """Finds the code of an error, or of the first error that it came from and that has one."""
    kind = type(error).__name__
    if isinstance(error, DiskTooSmall):
        return error.failure
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        status = getattr(getattr(cause, "response", None), "status_code", 0)
        if code := _code(cause, status):
            return Failure(code, status, kind=kind)
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return Failure("unknown", kind=kind)


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
