"""Reads a request's body within limits of size, time and total memory."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from services.store.api_error import ApiError

MAX_BODY = 16 * 1024 * 1024  # bytes
BODY_SECONDS = 20.0  # for a client to send the body
ARRIVING = 32 * 1024 * 1024  # bytes of all incomplete bodies in this process


class _Arriving:
    """The bodies in transfer."""

    readers = 0
    held = 0  # bytes


async def read_body(http: Request, limit: int = MAX_BODY) -> bytes:
    """The body of a request; `limit` is in bytes.

    When all bodies together exceed ARRIVING, those above an equal share are refused.
    Raises: ApiError when the body is too large or too slow.
    """
    length = http.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ApiError(400, "Content-Length is not a number of bytes.", code="invalid_request")
    if int(length[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    _Arriving.readers += 1
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in http.stream():
                body += piece
                _Arriving.held += len(piece)
                if len(body) > limit:
                    raise _too_large(limit)
                if _Arriving.held > ARRIVING and len(body) > ARRIVING // _Arriving.readers:
                    raise ApiError(503, "Too many large requests are in transfer.", code="overloaded", wait=1)
    except TimeoutError as error:
        raise ApiError(408, f"The request did not arrive in {BODY_SECONDS:.0f} s.") from error
    finally:
        _Arriving.readers -= 1
        _Arriving.held -= len(body)
    return bytes(body)


def _too_large(limit: int) -> ApiError:
    size = f"{limit // 1024 // 1024} MB" if limit >= 1024 * 1024 else f"{limit // 1024} kB"
    return ApiError(413, f"The limit for this request is {size}.", code="too_large")
