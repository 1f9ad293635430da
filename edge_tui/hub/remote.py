"""A model on the hub: what it is before it is downloaded, and its download, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError, StoredTensor, describe
from edge_tui.engine.checkpoints.weight_files import without_safetensors
from edge_tui.errors import EdgeError
from edge_tui.hub.error_messages import Failure
from edge_tui.hub.listing import Listing, listing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_URL = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_PATIENCE = 2.0
"""Seconds that a download that was told to stop has for it."""
_WINDOW = 5.0
"""Seconds that a download's rate looks back."""


def repository_id(text: str) -> str:
    """The repository that a typed or pasted text means, an address of its page included; "" if none."""
    bare = "/".join(_URL.sub("", text.strip()).split("/")[:2])
    return bare if _ID.fullmatch(bare) and ".." not in bare and not bare.startswith("demo/") else ""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on the hub.

    Attributes:
        name: Its repository.
        commit: The revision looked at.
        files: Bytes of each file that a download would fetch.
        checkpoint: As if it were here; None if it could not be used.
        refusal: Why not, one sentence.
        gated: Whether its terms must be accepted first.
    """

    name: str
    commit: str
    files: Mapping[str, int]
    checkpoint: Checkpoint | None
    refusal: str = ""
    gated: bool = False

    @property
    def bytes(self) -> int:
        """Of the whole download."""
        return sum(self.files.values())

    @property
    def listing(self) -> Listing:
        """As the list of models shows it."""
        if self.checkpoint is None:
            return Listing(self.name, "hub", refusal=self.refusal)
        return replace(listing_of(self.checkpoint), origin="hub")


class HubError(EdgeError):
    """Reports that the hub cannot be reached, or refuses; `code` is the failure's where there is one."""

    def __init__(self, sentence: str, code: str = "hub") -> None:
        super().__init__(sentence)
        self.code = code


def look(name: str) -> RemoteModel:
    """Asks the hub what a repository holds; seconds at most.

    Raises:
        HubError: it could not be asked, or there is no such repository.
    """
    with _child("look", name) as process:
        for said in _lines(process):
            if said["event"] == "failed":
                failure = _failure(said)
                raise HubError(failure.sentence(name), failure.code)
            if said["event"] == "seen":
                return _remote(name, said)
    raise HubError(f"{name} could not be looked at: the process that asks the hub ended early; try again.")


def _remote(name: str, said: Mapping[str, Any]) -> RemoteModel:
    tensors = {key: StoredTensor(each[0], tuple(each[1]), each[2]) for key, each in said["tensors"].items()}
    present = set(said["present"])

    def stored() -> Mapping[str, StoredTensor]:
        if not tensors:
            raise without_safetensors(name, present) or CheckpointError(
                f"{name} has no weights (model.safetensors); choose a repository that holds a model."
            )
        return tensors

    checkpoint, refusal = None, ""
    with tempfile.TemporaryDirectory(prefix="edge-tui-") as folder:
        for file, text in said["texts"].items():
            (Path(folder) / Path(file).name).write_text(text, encoding="utf-8")
        try:
            if "config.json" not in present:
                stored()
            checkpoint = describe(name, Path(folder), stored, present.__contains__)
        except CheckpointError as error:
            refusal = str(error).replace(folder, name)
    return RemoteModel(name, said["commit"], said["files"], checkpoint, refusal, bool(said["gated"]))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download has come.

    Attributes:
        phase: "looking", "fetching", then one of the others for good.
        done: Bytes that are here.
        total: Bytes in all; 0 while that is not known.
        rate: Bytes a second over the last moments; None before there is one.
        sentence: Why it failed.
    """

    phase: Literal["looking", "fetching", "done", "failed", "cancelled"] = "looking"
    done: int = 0
    total: int = 0
    rate: float | None = None
    sentence: str = ""

    @property
    def active(self) -> bool:
        return self.phase in ("looking", "fetching")

    @property
    def eta(self) -> float | None:
        """Seconds that remain at the present rate."""
        return (self.total - self.done) / self.rate if self.rate and self.phase == "fetching" else None

    @property
    def left(self) -> str:
        """The time that remains in words: "42 s left", "7 min left"; "" while that is not known."""
        if (seconds := self.eta) is None:
            return ""
        if seconds < 99.5:
            return f"{seconds:.0f} s left"
        return f"{seconds / 60:.0f} min left" if seconds < 5_400 else f"{seconds / 3600:.1f} h left"


@dataclass(slots=True)
class Download:
    """A download that goes on by itself; look at `progress` whenever you like.

    Args:
        name: The repository.
        changed: Called from the download's thread after each step; what it raises ends that thread only.
    """

    name: str
    changed: Callable[[], object] = lambda: None
    progress: Progress = field(default_factory=Progress, init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _seen: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _cancelled: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> Download:
        """Begins the download."""
        self._process = _child("pull", self.name)
        self._thread = threading.Thread(target=self._follow, name=f"pull {self.name}", daemon=True)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Gives up; files that have come whole stay. Returns at once."""
        self._cancelled = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            timer = threading.Timer(_PATIENCE, process.kill)
            timer.daemon = True
            timer.start()

    def wait(self, timeout: float | None = None) -> Progress:
        """Waits for the end, or for `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.progress

    def _follow(self) -> None:
        assert self._process is not None
        with self._process as process:
            for said in _lines(process):
                self._take(said)
                self.changed()
        if self.progress.active:
            ended = f"The download of {self.name} ended early; start it again to go on."
            phase: Literal["cancelled", "failed"] = "cancelled" if self._cancelled else "failed"
            self.progress = replace(self.progress, phase=phase, sentence="" if self._cancelled else ended)
        self.changed()

    def _take(self, said: Mapping[str, Any]) -> None:
        match said["event"]:
            case "plan":
                self.progress = Progress("fetching", said["done"], said["bytes"])
                self._seen.append((time.monotonic(), said["done"]))
            case "bytes":
                now, done = time.monotonic(), min(said["done"], self.progress.total)
                self._seen.append((now, done))
                while len(self._seen) > 2 and self._seen[0][0] < now - _WINDOW:
                    self._seen.popleft()
                began, before = self._seen[0]
                rate = (done - before) / (now - began) if now > began else None
                self.progress = replace(self.progress, done=done, rate=rate)
            case "done":
                self.progress = replace(self.progress, phase="done", done=self.progress.total)
            case "failed":
                failure = _failure(said)
                self.progress = replace(self.progress, phase="failed", sentence=failure.sentence(self.name))
            case _:
                pass


def _failure(message: Mapping[str, Any]) -> Failure:
    return Failure(**{key: value for key, value in message.items() if key != "event"})


def _child(what: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_tui.hub.download_worker", what, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        # ctrl-c in the terminal is the parent's to handle.
        start_new_session=True,
        env={**os.environ, "PYTHONUTF8": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )


def _lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
