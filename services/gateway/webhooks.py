"""Git pushes told by a signed webhook in GitHub's form: written down, and then told to Prefect."""

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

MAX_PUSH = 1024 * 1024  # bytes of a push; GitHub's have some kB
SIGNATURE = re.compile("sha256=[0-9a-f]{64}")
SECRET = "DRIFTLINE_HOOK_SECRET"  # no setting: those are shown, and may stand in a file that git keeps


class WebhookReceiver:
    """Takes pushes, for Prefect to be told of."""

    def __init__(self, store: Store, settings: Settings, telling: Outbox) -> None:
        self._store, self._branch, self._telling = store, settings.git_branch, telling
        self._secret = os.environ.get(SECRET, "").encode()

    async def take(self, headers: Mapping[str, str], body: bytes) -> str:
        """Write a push down, and say what will become of it.

        Raises: Refusal when it is not signed with our secret, is no push, or came before.
        """
        self.check_headers(headers)
        self._check_signature(headers, body)
        kind, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if kind != "push":
            return "nothing to do: it is no push"
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
            raise ApiError(409, "This delivery came before.", code="replayed") from error
        self._telling.at_once()
        return "accepted"

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse what can't be a signed push, before its body is read.

        Raises: Refusal.
        """
        if not self._secret:
            raise ApiError(403, f"No pushes are taken here: {SECRET} is not set.", code="no_secret")
        if not SIGNATURE.fullmatch(headers.get("x-hub-signature-256", "")):
            raise ApiError(401, "X-Hub-Signature-256 is missing, or is no signature.", code="bad_signature")

    def _check_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        signed = headers.get("x-hub-signature-256", "")
        ours = "sha256=" + hmac.new(self._secret, body, "sha256").hexdigest()
        if not hmac.compare_digest(signed.encode(), ours.encode()):
            raise ApiError(401, "X-Hub-Signature-256 is not the body's HMAC under our secret.", code="bad_signature")

    def _insert(self, row: dict[str, Any]) -> None:
        with self._store.writing() as to:
            to.execute(insert(webhook_deliveries).values(**row))


def read_push(delivery: str, body: bytes) -> GitPush:
    """Raises: Refusal when the body is no push in GitHub's form."""
    try:
        said = orjson.loads(body)
        return GitPush(
            id=delivery,
            ref=said["ref"],
            old=said["before"],
            new=said["after"],
            repository=str((said.get("repository") or {}).get("full_name") or "")[:200],
            who=str((said.get("pusher") or {}).get("name") or "")[:120],
        )
    except ValidationError as error:
        told = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise ApiError(400, f"This is no push: {told}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(400, f"This is no push in GitHub's form, as application/json: {error!r}") from error
