"""A hub on loopback: the requests that a download makes, answered over real HTTP from folders on disk."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"
TOKEN = "hf_standInToken123"


@dataclass
class Repository:
    """One repository.

    Attributes:
        folder: Its files.
        gated: Whether terms must be accepted first; no token does.
        private: Whether only `TOKEN` may see it.
        commit: What main is.
        sizes: Lies about files' sizes in the list of files.
    """

    folder: Path
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class StandIn:
    """The server.

    Attributes:
        url: What HF_ENDPOINT is to be set to.
        repositories: By id.
        fetched: Files whose content was sent, headers of weight files aside, in order.
        revisions: Of the files that were asked for.
        tokens: Authorization headers seen.
        bytes_per_second: Of each file of weights; None sends at once.
        stall_after: Bytes of each file of weights behind which nothing comes; None sends all.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    revisions: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    bytes_per_second: float | None = None
    stall_after: int | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the acknowledgement of its head
    hub: StandIn

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self._answer(found[1], self._info)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name = found[3]
            self.hub.revisions.add(found[2])
            self._answer(found[1], lambda repository: self._file(repository, name))
        else:
            self._refuse(404, "EntryNotFound")

    def _answer(self, name: str, give: object) -> None:
        repository = self.hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name == "org/broken":
            self._refuse(503, "")
        elif self.headers.get("Authorization") and not allowed:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None:
            # As the hub does: whoever shows no token is not told what exists.
            self._refuse(404 if allowed else 401, "RepoNotFound")
        elif repository.private and not allowed:
            self._refuse(401, "RepoNotFound")
        elif repository.gated and "/api/" not in self.path:
            self._refuse(403 if allowed else 401, "GatedRepo")
        else:
            give(repository)  # type: ignore[operator]

    def _info(self, repository: Repository) -> None:
        siblings = [
            {"rfilename": name, "size": repository.sizes.get(name, file.stat().st_size)}
            for file in sorted(repository.folder.rglob("*"))
            if (name := str(file.relative_to(repository.folder))) and file.is_file()
        ]
        name = self.path.split("/api/models/")[1]
        facts = {
            "_id": "1",
            "id": "/".join(name.split("/")[:2]).partition("?")[0],
            "sha": repository.commit,
            "gated": "manual" if repository.gated else False,
            "private": repository.private,
            "siblings": siblings,
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        self._send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, name: str) -> None:
        file = repository.folder / name
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": repository.commit,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.command == "GET" and not wanted:
            self.hub.fetched.append(name)
        if not wanted:
            self._send(200, content, headers, slowly=name.endswith((".safetensors", ".gguf")))
            return
        begin, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
        self._send(206, content[begin : end + 1], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], slowly: bool = False) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        pace = self.hub.bytes_per_second if slowly else None
        try:
            step = max(int(pace / 50), 1) if pace else len(body)
            if slowly and self.hub.stall_after is not None and self.hub.stall_after < len(body):
                self.wfile.write(body[: self.hub.stall_after])
                self.rfile.read(1)  # until the client leaves
                self.close_connection = True
                return
            for at in range(0, len(body), max(step, 1)):
                self.wfile.write(body[at : at + step])
                if pace:
                    time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def _refuse(self, status: int, code: str, message: str = "no") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that goes away is part of the tests."""


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serves until the block ends."""
    hub = StandIn()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
