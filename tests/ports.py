"""Ports for servers that have to be told one, and the ports where processes listen."""

import contextlib
import random
import socket

import psutil

PORTS = range(20_000, 32_768)  # above those of Ray's workers, below those that Linux gives to whoever connects
_draw = random.Random()  # its own: the global one is seeded, and two runs at a time would draw the same
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback where nobody listens. One that the kernel chooses may be given to another program's
    connection before the server that was told of it has started."""
    while True:
        port = _draw.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _given:
                _given.add(port)
                return port


def listening(*processes: psutil.Process) -> set[tuple[str, int]]:
    """Addresses and ports. A process that has ended meanwhile listens nowhere."""
    found: set[tuple[str, int]] = set()
    for one in processes:
        try:
            found |= {tuple(c.laddr) for c in one.net_connections() if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                raise
    return found
