"""Validates address, key and limits of a server, the flags of `edge-tui serve`, and binds its socket.

That happens before torch is loaded, so that a wrong address fails at once.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass

from edge_tui.errors import UsageError
from edge_tui.util import logs
from edge_tui.util.user_file import expand

KEY_VARIABLE = "EDGE_TUI_API_KEY"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_RANGES = {
    "queue": ("--max-queue", 0, 10**6),
    "tokens": ("--max-tokens", 1, 2**20),
    "rows": ("--max-rows", 1, 4096),
    "prompts": ("--max-prompts", 1, 10**6),
    "seconds": ("--max-seconds", 1, 10**6),
    "drain": ("--drain-seconds", 0, 10**6),
    "body": ("the limit of bodies", 1024, 2**30),
    "port": ("--port", 0, 65535),
}
"""Flag, least and most of each limit."""


class OptionError(UsageError, ValueError):
    """Refuses options of a server."""

    code = "option"


@dataclass(frozen=True, slots=True)
class Options:
    """Holds address, key and limits of a server.

    Attributes:
        host: Address to bind.
        port: TCP port; 0 lets the system choose.
        key: API key of clients; "" needs none, on the loopback interface only.
        hosts: Names in the Host header that it accepts, besides its own address and localhost.
        manage: True if models may be loaded and unloaded over HTTP.
        queue: Requests that may wait.
        tokens: Most new tokens of one answer.
        rows: Most answers or beams of one request.
        prompts: Most prompts of one request.
        seconds: Most seconds that one generation may take.
        body: Most bytes of a request's body.
        drain: Seconds for requests in flight to finish after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str = ""
    hosts: tuple[str, ...] = ()
    manage: bool = False
    queue: int = 64
    tokens: int = 4096
    rows: int = 16
    prompts: int = 128
    seconds: float = 300.0
    body: int = 2 * 2**20
    drain: float = 10.0

    def __post_init__(self) -> None:
        """Validates the options.

        Raises:
            OptionError: others can reach the address and there is no key, or a limit is out of range.
        """
        if not self.key and not is_loopback(self.host):
            raise OptionError(
                f"{self.host} can be reached from other machines, so a key is needed: put one into "
                f"{KEY_VARIABLE} or a file for --api-key-file, or stay on 127.0.0.1."
            )
        for name, (flag, low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"{flag} is {getattr(self, name)}, but must be from {low} to {high}.")
        for host in self.hosts:
            if not (_NAME.fullmatch(host) or _is_address(host)):
                raise OptionError(f"--allow-host is {host!r}, but must be a name without scheme and port.")

    def accepts_host(self, host: str) -> bool:
        """Tells whether a request may have `host` (without the port) in its Host header.

        Addresses may be: only a name can be made to point here by a web page (DNS rebinding).
        """
        name = host.lower().strip("[]")
        return _is_address(name) or name in {"localhost", self.host.lower(), *map(str.lower, self.hosts)}


def read_key(file: str | None) -> str:
    """Returns the key from a file, else from the environment; "" if there is none.

    Raises:
        OptionError: the file cannot be read or holds no key, or the key has characters no header carries.
    """
    key, origin = os.environ.get(KEY_VARIABLE, "").strip(), KEY_VARIABLE
    if file is not None:
        origin = file
        try:
            key = expand(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"The key file {file} cannot be read: {error}.") from error
        if not key:
            raise OptionError(f"The key file {file} is empty: write the key into it.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptionError(f"The key in {origin} must be one word of ASCII characters.")
    logs.add_secret(key)
    return key


def bind(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Raises:
        OptionError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise OptionError(f"{host} port {port} cannot be bound: {reason}; choose another --port.") from error
    return listener


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach an address; of names only localhost is trusted."""
    name = host.strip("[]")
    return host == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
