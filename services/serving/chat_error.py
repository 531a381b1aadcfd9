"""The error of a language model's service."""

from __future__ import annotations


class ChatError(Exception):
    """An error that the client gets in OpenAI's form."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
