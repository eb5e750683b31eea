"""Take a port before anything slow is done, so that what is refused is said at once."""

from __future__ import annotations

import errno
import socket

from georetrieval.errors import GeoretrievalError, SettingsError

OTHER_PORTS = "name another one with --port, or --port 0 for any that is free"
OTHER_HOSTS = "leave --host out for this computer alone, or say 0.0.0.0 for all its addresses"


def listen(host: str, port: int) -> socket.socket:
    """Listen on a port of this computer.

    Parameters
    ----------
    host
        A name or an address of it.
    port
        0 for any that is free; the socket says which.

    Raises
    ------
    SettingsError
        If the host is no address of this computer.
    GeoretrievalError
        If the port is taken, or may not be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0])  # IPv4 first
        return socket.create_server(address[:2], family=family)
    except (socket.gaierror, UnicodeError):
        raise SettingsError(f"there is no host {host!r}: {OTHER_HOSTS}") from None
    except PermissionError:
        raise GeoretrievalError(
            f"port {port} is not for every user, like most below 1024: {OTHER_PORTS}"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise GeoretrievalError(
                f"port {port} is taken by another program: {OTHER_PORTS}"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"{host} is no address of this computer: {OTHER_HOSTS}") from None
        raise
