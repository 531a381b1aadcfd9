"""Clients of the serving benchmark, which cost little themselves, and the processor time of a stack's processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.core.sockets import unix_socket_path

TICKS = os.sysconf("SC_CLK_TCK")  # of the system's clock, a second


async def load(url: str, body: Any, connections: int, seconds: float, copies: int = 1) -> dict[str, float]:
    """Requests a second, and milliseconds at the median and other percentiles, over kept connections.

    `copies`: how often the request repeats the rows of `body`.
    """
    address = urlsplit(url)
    body = {**body, "rows": body["rows"] * copies} if copies > 1 else body
    request = request_of(address.path, json.dumps(body).encode(), {"host": address.netloc})
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while (begun := time.perf_counter()) < end:
            writer.write(request)
            response = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not response.startswith(b"http/1.1 200"):
                raise RuntimeError(response.decode())
            await reader.readexactly(int(response.split(b"content-length: ")[1].split(b"\r\n")[0]))
            taken.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    taken.sort()
    p50, p90, p99 = (1000 * taken[int(len(taken) * q)] for q in (0.5, 0.9, 0.99))
    seconds = time.perf_counter() - begun
    return {"calls": len(taken), "rps": len(taken) / seconds, "p50": p50, "p90": p90, "p99": p99}


class Client:
    """One kept connection to a server at http://host:port or unix:///path.sock, and one request, sent again."""

    def __init__(self, address: str, path: str, body: Any, key: str = "") -> None:
        headers = {"host": "localhost"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._request = request_of(path, json.dumps(body).encode(), headers)
        if place := unix_socket_path(address):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(place)
        else:
            url = urlsplit(address)
            self._socket = socket.create_connection((url.hostname or "", url.port or 80))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self) -> float:
        """Milliseconds from the request to the whole response.

        Raises: RuntimeError with a response that is not 200.
        """
        begun = time.perf_counter()
        self._socket.sendall(self._request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._socket.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65536)
        if b" 200 " not in head:
            raise RuntimeError((head + body).decode())
        return 1000 * (time.perf_counter() - begun)


def added(direct: Client, others: Mapping[str, Client], times: int) -> dict[str, float]:
    """Milliseconds that each way adds to the direct one: the median of differences of calls that follow each other."""
    ways = {"": direct, **others}
    for client in ways.values():
        for _ in range(min(times, 50)):
            client.call()
    differences: dict[str, list[float]] = {name: [] for name in others}
    for number in range(times):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        taken = {name: ways[name].call() for name in order}
        for name in others:
            differences[name].append(taken[name] - taken[""])
    return {name: statistics.median(values) for name, values in differences.items()}


def stack_processes(folder: Path) -> dict[int, str]:
    """The commands of all processes of the stack in a folder: those whose command or environment names it."""
    found, name = {}, os.fsencode(folder)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            command = (process / "cmdline").read_bytes()
            if name in command or name in (process / "environ").read_bytes():
                found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    found.pop(os.getpid(), None)
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """What these processes have taken so far."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def request_of(path: str, content: bytes, headers: Mapping[str, str]) -> bytes:
    """A POST request of JSON, as it is sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\n{lines}content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content
