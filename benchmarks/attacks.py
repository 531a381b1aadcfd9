"""What a connection can do wrong, each as a coroutine that does it once.

python -m benchmarks.attacks PORT SECONDS
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

HALF_OPEN = 1_100
SIZE = 64 * 1024  # bytes that an attack writes at once
MB = 1024 * 1024


async def attack(port: int, seconds: float) -> None:
    """Every attack at once, each again as soon as it was ended."""
    end = time.monotonic() + seconds
    attacks = [each for each, at_once in ATTACKS.items() for _ in range(at_once)]
    await asyncio.gather(*(_again(each, port, end) for each in attacks))


async def _again(one: Callable[[int], Awaitable[None]], port: int, end: float) -> None:
    await asyncio.sleep(random.random())
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(left):
                await one(port)
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def _flood(port: int, beginning: bytes, piece: bytes, total: int) -> None:
    """Write a beginning, and then pieces up to so many bytes."""
    async with _connected(port) as (_, writer):
        writer.write(beginning)
        for _ in range(total // len(piece)):
            writer.write(piece)
            await writer.drain()


async def _drip(port: int, beginning: bytes, piece: bytes) -> None:
    """Write a beginning, and then a piece every second until the other end closes."""
    async with _connected(port) as (reader, writer):
        writer.write(beginning)
        while not reader.at_eof():
            writer.write(piece)
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1024), 1)


async def half_open(port: int) -> None:
    async with _connected(port) as (reader, writer):
        writer.write(_head("/v1/predict/any")[:-2])
        await reader.read()


async def silent(port: int) -> None:
    async with _connected(port) as (reader, _):
        await reader.read()


async def endless_header(port: int) -> None:
    await _flood(port, _head("/", "X: ")[:-4], b"a" * SIZE, 64 * MB)


async def endless_headers(port: int) -> None:
    await _flood(port, _head("/")[:-2], b"a: b\r\n" * 1000, 64 * MB)


async def long_line(port: int) -> None:
    await _flood(port, b"GET /", b"a" * SIZE, 160 * MB)


async def long_method(port: int) -> None:
    await _flood(port, b"", b"A" * SIZE, 64 * MB)


async def blank_lines(port: int) -> None:
    await _drip(port, b"\r\n" * 1000, b"\r\n")


async def slow_head(port: int) -> None:
    await _drip(port, b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n")


async def slow_body(port: int) -> None:
    await _drip(port, _head("/v1/predict/any", "Content-Length: 100000"), b" ")


async def unsigned_push(port: int) -> None:
    await _flood(port, _head("/hooks/git", f"Content-Length: {64 * MB}"), b"a" * SIZE, 64 * MB)


async def signed_push(port: int) -> None:
    signature = f"X-Hub-Signature-256: sha256={'0' * 64}"
    await _flood(
        port,
        _head("/hooks/git", signature, "Transfer-Encoding: chunked"),
        b"10000\r\n" + b"a" * SIZE + b"\r\n",
        64 * MB,
    )


async def unread_answers(port: int) -> None:
    async with _connected(port) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(1000):
            writer.write(_head("/openapi.json", method="GET") * 10)
            await writer.drain()
        await asyncio.sleep(60)


async def endless_trailer(port: int) -> None:
    beginning = _head("/healthz", "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\nx: "
    await _flood(port, beginning, b"a" * SIZE, 64 * MB)


async def endless_extension(port: int) -> None:
    await _flood(port, _head("/v1/predict/any", "Transfer-Encoding: chunked") + b"1;", b"a" * SIZE, 64 * MB)


async def tiny_chunks(port: int) -> None:
    beginning = _head("/v1/predict/any", "Transfer-Encoding: chunked")
    await _flood(port, beginning, b"1\r\na\r\n" * 10_000, 64 * MB)


async def body_after_answer(port: int) -> None:
    await _flood(port, _head("/healthz", f"Content-Length: {10_000 * MB}", method="GET"), b"a" * SIZE, 64 * MB)


async def garbage(port: int) -> None:
    beginnings = (b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", random.randbytes(4096))
    async with _connected(port) as (reader, writer):
        writer.write(random.choice(beginnings))
        await reader.read()


ATTACKS: dict[Callable[[int], Awaitable[None]], int] = {
    half_open: HALF_OPEN,
    silent: 100,
    endless_header: 3,
    endless_headers: 3,
    long_line: 3,
    long_method: 1,
    blank_lines: 5,
    slow_head: 50,
    slow_body: 50,
    unsigned_push: 5,
    signed_push: 5,
    unread_answers: 5,
    endless_trailer: 2,
    endless_extension: 2,
    tiny_chunks: 2,
    body_after_answer: 3,
    garbage: 5,
}

if __name__ == "__main__":
    os.nice(19)  # attackers have machines of their own, and here they share the cores
    asyncio.run(attack(int(sys.argv[1]), float(sys.argv[2])))
