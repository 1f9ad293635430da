"""Inspects models on the hub and downloads them, each in a process of its own."""

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

from edge_tui.engine.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointError,
    StoredTensor,
    describe,
    describe_gguf,
)
from edge_tui.engine.checkpoints.weight_files import missing_safetensors_error
from edge_tui.errors import EdgeError
from edge_tui.hub.listing import Listing, listing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ID = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(:[A-Za-z0-9][\w.-]{0,63})?"
)
_URL = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_STOP_SECONDS = 2.0
"""Time that a cancelled download has to end by itself."""
_RATE_SECONDS = 5.0
"""Time over which a download's rate is measured."""


def repository_id(text: str) -> str:
    """Returns the repository of a typed id, with its tag, or of a pasted page's address; "" for neither."""
    bare = "/".join(_URL.sub("", text.strip()).split("/")[:2])
    return bare if _ID.fullmatch(bare) and ".." not in bare and not bare.startswith("demo/") else ""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """Describes a model on the hub.

    Attributes:
        name: Its repository.
        commit: The revision.
        files: Bytes of each file that a download would fetch.
        checkpoint: As if it were here; None if it could not be used.
        refusal: The reason if it could not, one sentence.
        gated: True if its terms must be accepted first.
    """

    name: str
    commit: str
    files: Mapping[str, int]
    checkpoint: Checkpoint | None
    refusal: str = ""
    gated: bool = False

    @property
    def bytes(self) -> int:
        """Size of the whole download."""
        return sum(self.files.values())

    @property
    def listing(self) -> Listing:
        """Entry for the list of models."""
        if self.checkpoint is None:
            return Listing(self.name, "hub", refusal=self.refusal)
        return replace(listing_of(self.checkpoint), origin="hub")


class HubError(EdgeError):
    """Reports that the hub cannot be reached, or refuses; `code` is the failure's where there is one."""

    def __init__(self, sentence: str, code: str = "hub") -> None:
        super().__init__(sentence)
        self.code = code


def inspect(name: str) -> RemoteModel:
    """Asks the hub what a repository holds; takes seconds at most.

    Args:
        name: The repository, with the tag of a GGUF file where it holds several.

    Raises:
        HubError: it could not be asked, there is no such repository, or a file has to be named.
    """
    with (
        tempfile.TemporaryDirectory(prefix="edge-tui-") as folder,
        _start_worker("look", name, folder) as process,
    ):
        for message in _messages(process):
            if message["event"] == "failed":
                raise HubError(message["sentence"], message["code"])
            if message["event"] == "inspected":
                return _remote_model(name, message, Path(folder))
    raise HubError(f"{name} could not be looked at: the process that asks the hub ended early; try again.")


def _remote_model(name: str, message: Mapping[str, Any], folder: Path) -> RemoteModel:
    """Describes a model by the worker's answer and the files that it put into a folder."""
    tensors = {
        key: StoredTensor(each[0], tuple(each[1]), each[2]) for key, each in message["tensors"].items()
    }
    present = set(message["present"])

    def stored() -> Mapping[str, StoredTensor]:
        if not tensors:
            raise missing_safetensors_error(name, present) or CheckpointError(
                f"{name} has no weights (model.safetensors); choose a repository that holds a model."
            )
        return tensors

    checkpoint, refusal = None, ""
    try:
        if message["gguf"]:
            checkpoint = describe_gguf(name, folder / message["gguf"])
        else:
            if "config.json" not in present:
                stored()
            checkpoint = describe(name, folder, stored, present.__contains__)
    except CheckpointError as error:
        refusal = str(error).replace(str(folder), name)
    return RemoteModel(name, message["commit"], message["files"], checkpoint, refusal, bool(message["gated"]))


@dataclass(frozen=True, slots=True)
class Progress:
    """Holds the state of a download.

    Attributes:
        phase: "looking", "fetching", then one of the others for good.
        done: Bytes that are here.
        total: Bytes in all; 0 while that is not known.
        rate: Bytes a second over the last moments; None before there is one.
        sentence: The reason if it failed.
    """

    phase: Literal["looking", "fetching", "done", "failed", "cancelled"] = "looking"
    done: int = 0
    total: int = 0
    rate: float | None = None
    sentence: str = ""

    @property
    def active(self) -> bool:
        """True until the download has ended."""
        return self.phase in ("looking", "fetching")

    @property
    def eta(self) -> float | None:
        """Seconds that remain at the present rate."""
        return (self.total - self.done) / self.rate if self.rate and self.phase == "fetching" else None

    @property
    def left(self) -> str:
        """Time that remains in words: "42 s left", "7 min left"; "" while that is not known."""
        if (seconds := self.eta) is None:
            return ""
        if seconds < 99.5:
            return f"{seconds:.0f} s left"
        return f"{seconds / 60:.0f} min left" if seconds < 5_400 else f"{seconds / 3600:.1f} h left"


@dataclass(slots=True)
class Download:
    """Downloads a repository in the background; `progress` has the state.

    Args:
        name: The repository.
        on_change: Called from the download's thread after each step; what it raises ends that thread only.
    """

    name: str
    on_change: Callable[[], object] = lambda: None
    progress: Progress = field(default_factory=Progress, init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _samples: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _cancelled: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> Download:
        """Starts the download."""
        self._process = _start_worker("pull", self.name)
        self._thread = threading.Thread(target=self._follow, name=f"pull {self.name}", daemon=True)
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Cancels the download and returns at once; files that have come whole stay."""
        self._cancelled = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            timer = threading.Timer(_STOP_SECONDS, process.kill)
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
            for message in _messages(process):
                self._apply(message)
                self.on_change()
        if self.progress.active:
            sentence = f"The download of {self.name} ended early; start it again to go on."
            phase: Literal["cancelled", "failed"] = "cancelled" if self._cancelled else "failed"
            self.progress = replace(self.progress, phase=phase, sentence="" if self._cancelled else sentence)
        self.on_change()

    def _apply(self, message: Mapping[str, Any]) -> None:
        """Updates the progress by a message of the worker."""
        match message["event"]:
            case "plan":
                self.progress = Progress("fetching", message["done"], message["bytes"])
                self._samples.append((time.monotonic(), message["done"]))
            case "bytes":
                now, done = time.monotonic(), min(message["done"], self.progress.total)
                self._samples.append((now, done))
                while len(self._samples) > 2 and self._samples[0][0] < now - _RATE_SECONDS:
                    self._samples.popleft()
                began, before = self._samples[0]
                rate = (done - before) / (now - began) if now > began else None
                self.progress = replace(self.progress, done=done, rate=rate)
            case "done":
                self.progress = replace(self.progress, phase="done", done=self.progress.total)
            case "failed":
                self.progress = replace(self.progress, phase="failed", sentence=message["sentence"])
            case _:
                pass


def _start_worker(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_tui.hub.download_worker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        # ctrl-c in the terminal is the parent's to handle.
        start_new_session=True,
        env={**os.environ, "PYTHONUTF8": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )


def _messages(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
