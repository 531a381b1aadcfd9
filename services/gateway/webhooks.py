"""Receives git pushes by a signed webhook in GitHub's form; the outbox delivers them to Prefect."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from services.gateway.outbox import Outbox
from services.store.api_error import ApiError
from services.store.database import Store, now, webhook_deliveries
from tasks.core.git_push import GitPush
from tasks.core.settings import Settings

MAX_PUSH = 1024 * 1024  # bytes; GitHub sends some kB
SIGNATURE = re.compile("sha256=[0-9a-f]{64}")
SECRET = "DRIFTLINE_HOOK_SECRET"  # not a setting: those are shown, and may be in a tracked file


class WebhookReceiver:
    """Verifies and stores pushes."""

    def __init__(self, store: Store, settings: Settings, outbox: Outbox) -> None:
        self._store, self._branch, self._outbox = store, settings.git_branch, outbox
        self._secret = os.environ.get(SECRET, "").encode()

    async def handle(self, headers: Mapping[str, str], body: bytes) -> str:
        """Verify and store a push; return its status.

        Raises: ApiError when the signature is wrong, the body is not a push, or the delivery is a repeated one.
        """
        self.check_headers(headers)
        self.verify_signature(headers, body)
        kind, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if kind != "push":
            return "nothing to do: not a push"
        push = read_push(delivery, body)
        if not push.triggers(self._branch):
            return f"nothing to do: neither a tag nor {self._branch}, or deleted"
        row = {
            "delivery_id": delivery,
            "body_digest": hashlib.sha256(body).hexdigest(),
            "received_at": now(),
            "payload": push.model_dump(),
        }
        try:
            await asyncio.to_thread(self._insert, row)
        except IntegrityError as error:
            raise ApiError(409, "This delivery was received before.", code="replayed") from error
        self._outbox.notify()
        return "accepted"

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that can't be a signed push, before its body is read.

        Raises: ApiError.
        """
        if not self._secret:
            raise ApiError(403, f"Webhooks are disabled: {SECRET} is not set.", code="no_secret")
        if not SIGNATURE.fullmatch(headers.get("x-hub-signature-256", "")):
            raise ApiError(401, "X-Hub-Signature-256 is missing or malformed.", code="bad_signature")

    def verify_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        signature = headers.get("x-hub-signature-256", "")
        expected = "sha256=" + hmac.new(self._secret, body, "sha256").hexdigest()
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise ApiError(401, "X-Hub-Signature-256 does not match the body and the secret.", code="bad_signature")

    def _insert(self, row: dict[str, Any]) -> None:
        with self._store.writing() as connection:
            connection.execute(insert(webhook_deliveries).values(**row))


def read_push(delivery: str, body: bytes) -> GitPush:
    """Parse a push. Raises: ApiError when the body is not in GitHub's form."""
    try:
        payload = orjson.loads(body)
        return GitPush(
            id=delivery,
            ref=payload["ref"],
            old=payload["before"],
            new=payload["after"],
            repository=str((payload.get("repository") or {}).get("full_name") or "")[:200],
            who=str((payload.get("pusher") or {}).get("name") or "")[:120],
        )
    except ValidationError as error:
        problems = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise ApiError(400, f"The body is not a push: {problems}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(400, f"The body is not a push in GitHub's form (application/json): {error!r}") from error
