"""The local user at the other end of a connection, from the kernel rather than from headers."""

from __future__ import annotations

import os
import socket
import struct

from tasks.core.hosts import is_loopback

SOCK_DIAG = 4  # netlink family; linux/sock_diag.h
BY_FAMILY = 20  # kind of message
ESTABLISHED = 1
HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence, port of a netlink message
REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states of an inet_diag_req_v2
PORTS = struct.Struct(">HH")
ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface, cookie
ADDRESS = 16  # bytes of an address field, IPv4 too
SIZE = HEADER.size + REQUEST.size + PORTS.size + 2 * ADDRESS + len(ANY_COOKIE)
STATE_AT = HEADER.size + 1
USER_AT = HEADER.size + 4 + PORTS.size + 2 * ADDRESS + len(ANY_COOKIE) + 12  # then the socket's inode

Endpoint = tuple[str, int]


def is_own_loopback(client: Endpoint | None, server: Endpoint | None) -> bool:
    """Whether `client` is a socket of this process's user on this machine's loopback, connected to `server`."""
    return bool(client and server and is_loopback(client[0]) and socket_user(client, server) == os.getuid())


def socket_user(local: Endpoint, remote: Endpoint) -> int | None:
    """The user id that owns the connected socket `local`; None when there is no such socket.

    Queries the kernel for this one socket, in 35 us for any number of sockets. None on systems other than Linux.
    """
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    try:
        addresses = [socket.inet_pton(family, end[0]).ljust(ADDRESS, b"\0") for end in (local, remote)]
        question = HEADER.pack(SIZE, BY_FAMILY, 1, 0, 0) + REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << ESTABLISHED)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            kernel.send(question + PORTS.pack(local[1], remote[1]) + b"".join(addresses) + ANY_COOKIE)
            reply = kernel.recv(4096)
    except (AttributeError, OSError):
        return None
    if HEADER.unpack_from(reply)[1] != BY_FAMILY or reply[STATE_AT] != ESTABLISHED:
        return None
    user, inode = struct.unpack_from("=II", reply, USER_AT)
    return int(user) if inode else None  # the kernel reports a closed socket as root's, without inode
