"""Downloads checkpoints in a process of its own and keeps whole files only.

`python -m edge_tui.hub.download_worker look NAME FOLDER` and `… pull NAME` run it; a name is a repository, or
one with the tag of a GGUF file. The decode loop shares its interpreter with nothing that waits for a network,
and a kill ends a download for certain. It writes lines of JSON to standard output, each with the key "event".
`look` reports what a repository holds, and puts its small files and the headers of GGUF files into the
folder. `pull` downloads the files into the cache, the small ones first, so that a checkpoint with its weights
is whole.

huggingface_hub honours `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the variables of the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_tui.engine.checkpoints.gguf.choice import choose, split_tag
from edge_tui.engine.checkpoints.gguf.model import first_parts, part_names
from edge_tui.engine.checkpoints.locate import cache_root, repository_folder
from edge_tui.errors import EdgeError
from edge_tui.hub.error_messages import DiskTooSmall, describe
from edge_tui.util.atomic_write import PUBLIC, replace_file
from edge_tui.util.user_file import existing_folder

SMALL = 16_000_000
"""Bytes of the largest JSON file that is read before the download."""
_HEADER = 24_000_000
"""Bytes of a GGUF file that are read before the download: no published header is as long."""
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
    what, name, *rest = argv
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if what == "look":
            send("inspected", **inspect(name, Path(rest[0])))
        else:
            send("done", path=str(download(name)))
    except EdgeError as error:
        send("failed", code=error.code, sentence=str(error))
    except Exception as error:
        code, sentence = describe(error, split_tag(name)[0])
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


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """Reads what a repository holds, without downloading a weight.

    Args:
        name: The repository, with or without a tag.
        folder: Takes the small files and, at their full length, the headers of GGUF files.

    Returns:
        commit; files: size in bytes of each file worth fetching; present: names of all files; tensors:
        [dtype, shape, bytes] by name; gguf: name in the folder of the first GGUF file, "" where the model is
        in safetensors; gated: whether terms must be accepted.

    Raises:
        CheckpointError: a GGUF file has to be named.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    repository, tag = split_tag(name)
    info = api.model_info(repository, files_metadata=True)
    files = {each.rfilename: each.size or 0 for each in info.siblings or []}
    small = [file for file in _INSPECTED if 0 < files.get(file, 0) <= SMALL]
    for file in small:
        content = _fetch(api, repository, file, str(info.sha))
        (folder / file).write_bytes(content)
    tensors: dict[str, tuple[str, list[int], int]] = {}
    index = folder / "model.safetensors.index.json"
    weights = weight_files(files, index.read_text("utf-8") if index.is_file() else "")
    if tag or not weights:
        weights = _gguf_files(repository, tag, files)
        for file in weights:
            _write_header(api, repository, file, str(info.sha), files[file], folder)
    else:
        with ThreadPoolExecutor(8) as pool:
            for header in pool.map(lambda file: _header(api, repository, file, str(info.sha)), weights):
                tensors |= header
    return {
        "commit": info.sha,
        "files": {file: files[file] for file in files_to_fetch(files, weights)},
        "present": sorted(files),
        "tensors": tensors,
        "gguf": Path(weights[0]).name if weights and not tensors else "",
        "gated": bool(info.gated),
    }


def _gguf_files(repository: str, tag: str, files: dict[str, int]) -> list[str]:
    """Lists the files of the GGUF model that a tag chooses; none where the repository holds no GGUF.

    Raises:
        CheckpointError: none has the tag, or it does not tell them apart.
    """
    if not tag and not first_parts(files):
        return []
    return [part for part in part_names(choose(repository, files, tag)) if part in files]


def _write_header(api: Any, repository: str, name: str, commit: str, size: int, folder: Path) -> None:
    """Writes the beginning of a GGUF file, which has its header, into a file that claims its whole length."""
    beginning = _fetch(api, repository, name, commit, min(size, _HEADER))
    with (folder / Path(name).name).open("wb") as file:
        file.write(beginning)
        file.truncate(size)


def weight_files(files: dict[str, int], index: str) -> list[str]:
    """Lists the safetensors files that make up the model, by the text of its index, "" for none."""
    if index:
        shards = {str(file) for file in dict(json.loads(index).get("weight_map") or {}).values()}
        return sorted(shards & set(files))
    return ["model.safetensors"] if "model.safetensors" in files else []


def _fetch(api: Any, repository: str, name: str, commit: str, count: int = 0) -> bytes:
    """Fetches a file, or its first bytes."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository, name, revision=commit, endpoint=api.endpoint)
    wanted = {"Range": f"bytes=0-{count - 1}"} if count else {}
    answer = get_session().get(url, headers=build_hf_headers() | wanted, timeout=20)
    hf_raise_for_status(answer)
    return bytes(answer.content)


def _header(api: Any, repository: str, name: str, commit: str) -> dict[str, tuple[str, list[int], int]]:
    metadata = api.parse_safetensors_file_metadata(repository, name, revision=commit)
    return {
        key: (tensor.dtype, list(tensor.shape), tensor.data_offsets[1] - tensor.data_offsets[0])
        for key, tensor in metadata.tensors.items()
    }


def download(name: str) -> Path:
    """Downloads a model's files into the cache; files that are there stay.

    Args:
        name: A repository, with or without the tag of a GGUF file.

    Returns:
        The snapshot's folder.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    repository, _ = split_tag(name)
    with tempfile.TemporaryDirectory(prefix="edge-tui-") as temporary:
        contents = inspect(name, Path(temporary))
    files: dict[str, int] = contents["files"]
    commit = str(contents["commit"])
    folder = repository_folder(repository)
    _remove_stale_partials(folder / "blobs")
    missing = {
        file: size
        for file, size in files.items()
        if not isinstance(try_to_load_from_cache(repository, file, revision=commit), str)
    }
    total, left = sum(files.values()), sum(missing.values())
    count = _ByteCounter(total, total - left)
    send("plan", bytes=count.total, done=count.done)
    free = shutil.disk_usage(existing_folder(cache_root())).free
    if free < left:  # refused before it fills the disk
        raise DiskTooSmall(left, free)
    # Ten megabytes at a time would be ten seconds without a word on a slow line.
    constants.DOWNLOAD_CHUNK_SIZE = 2**16

    def fetch(file: str) -> None:
        hf_hub_download(repository, file, revision=commit, tqdm_class=count.bar())

    with count:
        weights = [file for file in missing if file.endswith((".safetensors", ".gguf"))]
        for file in missing:
            if file not in weights:
                fetch(file)
        with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
            list(pool.map(fetch, weights))
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
