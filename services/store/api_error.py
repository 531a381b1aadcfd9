"""Errors of the HTTP API in OpenAI's form."""

from __future__ import annotations

from typing import Any

import orjson

from tasks.core.errors import DriftlineError

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


class ApiError(DriftlineError):
    """An HTTP error as the answer to a call."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.wait = wait  # seconds until a retry

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.wait is None else {"retry-after": str(max(1, round(self.wait)))}


def release_error_body(tag: str, status: int, body: bytes) -> bytes:
    """A release's error in OpenAI's form; its other fields, such as the invalid rows, stay."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        return orjson.dumps(ApiError(status, f"{tag} refused the request with status {status}.").body)
    if isinstance(content.get("error"), dict):
        return body
    return orjson.dumps(content | ApiError(status, str(content.get("error", status))).body)
