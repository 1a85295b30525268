"""The way to the first process: the network interface by which this host's processes have to talk."""

import fcntl
import logging
import os
import socket
import struct
from contextlib import suppress

log = logging.getLogger(__name__)
CHOSEN = "GLOO_SOCKET_IFNAME"
"""The environment variable by which gloo is told of an interface."""
SIOCGIFADDR = 0x8915  # linux/sockios.h: an interface's address


def choose_interface() -> None:
    """Have gloo use the interface that leads to the first process, where this host's name leads to itself alone.

    gloo gives others the address of the host's name, which Debian writes into /etc/hosts as 127.0.1.1. An interface
    that the user has chosen stays.
    """
    if CHOSEN in os.environ or not _loopback(_address(socket.gethostname())):
        return
    own = _towards(os.environ["MASTER_ADDR"])
    name = None if _loopback(own) else _interface(own)
    if name is not None:
        log.info("this host's name leads to itself alone: processes talk by %s (%s=%s)", own, CHOSEN, name)
        os.environ[CHOSEN] = name


def _loopback(address: str | None) -> bool:
    return address is None or address.startswith("127.")


def _address(name: str) -> str | None:
    with suppress(OSError):
        return socket.gethostbyname(name)
    return None


def _towards(host: str) -> str | None:
    """This host's address on the way to another one; nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])
    return None


def _interface(address: str | None) -> str | None:
    """The name of the interface that has an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
