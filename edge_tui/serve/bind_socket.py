"""Binds the server's socket before torch is loaded, so that a wrong address fails at once."""

from __future__ import annotations

import errno
import socket

from edge_tui.serve.options import OptionError


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
