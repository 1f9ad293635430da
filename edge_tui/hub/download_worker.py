"""Downloads checkpoints in a process of its own and keeps whole files only.

`python -m edge_tui.hub.download_worker look|pull REPO` runs it. The decode loop shares its interpreter with
nothing that waits for a network, and a kill ends a download for certain. It writes lines of JSON to
standard output, each with the key "event"; `look` reports what a repository holds, from its list of files,
its small JSON files and the headers of its weight files; `pull` downloads the files into the cache, the
small ones first, so that a checkpoint with its weights is whole.

huggingface_hub honours `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the variables of the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_tui.engine.checkpoints.locate import cache_root, repository_folder
from edge_tui.hub.error_messages import DiskTooSmall, describe
from edge_tui.util.atomic_write import PUBLIC, replace_file
from edge_tui.util.user_file import existing_folder

SMALL = 16_000_000
"""Bytes of the largest JSON file that is read before the download."""
_INSPECTED = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
_TOKENIZER = ("tokenizer.model", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja")
_STALE_SECONDS = 600.0
"""Seconds without a write after which a partial file is a killed download's."""
_SHARDS_AT_ONCE = 4


def main(argv: list[str]) -> int:
    """Inspects or downloads one repository and sends the result; returns 0 even if that is a failure."""
    what, repository = argv
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if what == "look":
            send("inspected", **inspect(repository))
        else:
            send("done", path=str(download(repository)))
    except Exception as error:
        code, sentence = describe(error, repository)
        send("failed", code=code, sentence=sentence)
    return 0


def send(event: str, **facts: object) -> None:
    """Sends one line to the parent process; ends this process if nobody reads."""
    try:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()
    except OSError:
        os._exit(1)


def files_to_fetch(files: dict[str, int], weights: list[str]) -> list[str]:
    """Selects safetensors, tokenizer and JSON files of the top folder, small ones first."""
    small = [name for name in files if "/" not in name and (name.endswith(".json") or name in _TOKENIZER)]
    return [*sorted(small, key=lambda name: files[name]), *weights]


def inspect(repository: str) -> dict[str, Any]:
    """Reads what a repository holds, without downloading a weight.

    Returns:
        commit; files: size in bytes of each file worth fetching; present: names of all files; texts: the
        small files; tensors: [dtype, shape, bytes] by name; gated: whether terms must be accepted.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    info = api.model_info(repository, files_metadata=True)
    files = {each.rfilename: each.size or 0 for each in info.siblings or []}
    texts = {
        name: _text(api, repository, name, str(info.sha))
        for name in _INSPECTED
        if 0 < files.get(name, 0) <= SMALL
    }
    weights = weight_files(files, texts)
    tensors: dict[str, tuple[str, list[int], int]] = {}
    with ThreadPoolExecutor(8) as pool:
        for header in pool.map(lambda name: _header(api, repository, name, str(info.sha)), weights):
            tensors |= header
    return {
        "commit": info.sha,
        "files": {name: files[name] for name in files_to_fetch(files, weights)},
        "present": sorted(files),
        "texts": texts,
        "tensors": tensors,
        "gated": bool(info.gated),
    }


def weight_files(files: dict[str, int], texts: dict[str, str]) -> list[str]:
    """Lists the safetensors files that make up the model, by its index."""
    index = texts.get("model.safetensors.index.json")
    if index is not None:
        shards = {str(file) for file in dict(json.loads(index).get("weight_map") or {}).values()}
        return sorted(shards & set(files))
    return ["model.safetensors"] if "model.safetensors" in files else []


def _text(api: Any, repository: str, name: str, commit: str) -> str:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository, name, revision=commit, endpoint=api.endpoint)
    answer = get_session().get(url, headers=build_hf_headers(), timeout=20)
    hf_raise_for_status(answer)
    return str(answer.text)


def _header(api: Any, repository: str, name: str, commit: str) -> dict[str, tuple[str, list[int], int]]:
    metadata = api.parse_safetensors_file_metadata(repository, name, revision=commit)
    return {
        key: (tensor.dtype, list(tensor.shape), tensor.data_offsets[1] - tensor.data_offsets[0])
        for key, tensor in metadata.tensors.items()
    }


def download(repository: str) -> Path:
    """Downloads a repository's files into the cache; files that are there stay.

    Returns:
        The snapshot's folder.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    contents = inspect(repository)
    files: dict[str, int] = contents["files"]
    commit = str(contents["commit"])
    folder = repository_folder(repository)
    _remove_stale_partials(folder / "blobs")
    missing = {
        name: size
        for name, size in files.items()
        if not isinstance(try_to_load_from_cache(repository, name, revision=commit), str)
    }
    total, left = sum(files.values()), sum(missing.values())
    count = _ByteCounter(total, total - left)
    send("plan", bytes=count.total, done=count.done)
    free = shutil.disk_usage(existing_folder(cache_root())).free
    if free < left:  # refused before it fills the disk
        raise DiskTooSmall(left, free)
    # Ten megabytes at a time would be ten seconds without a word on a slow line.
    constants.DOWNLOAD_CHUNK_SIZE = 2**16

    def fetch(name: str) -> None:
        hf_hub_download(repository, name, revision=commit, tqdm_class=count.bar())

    with count:
        for name in missing:
            if not name.endswith(".safetensors"):
                fetch(name)
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            list(pool.map(fetch, [name for name in missing if name.endswith(".safetensors")]))
    # Last of all: until then an older, whole snapshot remains in use.
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    replace_file(folder / "refs" / "main", commit, PUBLIC)
    return folder / "snapshots" / commit


class _ByteCounter:
    """Counts the bytes that have come, and sends them five times a second."""

    def __init__(self, total: int, done: int) -> None:
        self.total = total
        self.done = done
        self._lock = threading.Lock()
        self._over = threading.Event()

    def add(self, count: float) -> None:
        """Counts bytes, from any thread."""
        with self._lock:
            self.done += int(count)

    def bar(self) -> type:
        """Returns a class of progress bars that count here and paint nothing."""
        from huggingface_hub.utils import tqdm

        add = self.add

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs["disable"] = True
                super().__init__(*args, **kwargs)

            def update(self, n: float | None = 1) -> None:
                add(n or 0)

        return Bar

    def __enter__(self) -> None:
        threading.Thread(target=self._report, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        send("bytes", done=self.done)

    def _report(self) -> None:
        while not self._over.wait(0.2):
            send("bytes", done=self.done)


def _terminate(*_: object) -> None:
    """Removes the partial files that are open and ends at once; threads in a request would not."""
    while _remove_open_partials():
        pass  # another thread may have opened the next file meanwhile
    os._exit(143)


def _remove_open_partials() -> int:
    """Removes the partial files that this process has open; returns how many there were."""
    removed = 0
    for number in _list_folder(Path("/proc/self/fd")):
        with suppress(OSError):
            if (file := number.readlink()).suffix == ".incomplete":
                file.unlink()
                removed += 1
    return removed


def _list_folder(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _remove_stale_partials(blobs: Path) -> None:
    """Removes partial files of killed downloads; they could not be resumed."""
    for partial in _list_folder(blobs):
        with suppress(OSError):
            if partial.suffix == ".incomplete" and time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                partial.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
