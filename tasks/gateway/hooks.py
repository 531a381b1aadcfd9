"""Git pushes told by a signed webhook in GitHub's form: written down first, then told to Prefect until it has heard."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from pydantic import ValidationError
from sqlalchemy import RowMapping, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tasks.foundation.push import DEPLOYMENT, Push
from tasks.foundation.settings import Settings
from tasks.ledger.refusal import Refusal
from tasks.ledger.store import Store, now, pushes

SECRET = "DRIFTLINE_HOOK_SECRET"  # no setting: those are shown, and may stand in a file that git keeps
LOOK, MOST_WAIT = 2.0, 32.0  # seconds between tries, ever longer; a push that comes is tried at once
NEVER = (400, 409, 413, 422)  # Prefect will not take it, however often it is asked


class Hooks:
    """Takes pushes, and tells Prefect of them in the background."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._branch, self._api = store, settings.git_branch, settings.prefect_api
        self._secret = os.environ.get(SECRET, "").encode()
        self._came = asyncio.Event()

    async def take(self, headers: Mapping[str, str], body: bytes) -> str:
        """Write a push down, and say what will become of it.

        Raises: Refusal when it is not signed with our secret, is no push, or came before.
        """
        self._check_signature(headers, body)
        kind, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if kind != "push":
            return "nothing to do: it is no push"
        push = read_push(delivery, body)
        if not push.counts(self._branch):
            return f"nothing to do: neither a tag nor {self._branch}, or deleted"
        row = {"delivery": delivery, "body": hashlib.sha256(body).hexdigest(), "at": now(), "push": push.model_dump()}
        try:
            await asyncio.to_thread(self._insert, row)
        except IntegrityError as error:
            raise Refusal(409, "This delivery came before.", code="replayed") from error
        self._came.set()
        return "accepted"

    async def deliver(self) -> None:
        """Tell Prefect of each push, oldest first, for ever. Two gateways that tell of the same one make one run."""
        auth = os.environ.get("PREFECT_API_AUTH_STRING")
        headers = {"authorization": aiohttp.encode_basic_auth(*auth.split(":", 1))} if auth else {}
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=False) as http:
            wait = LOOK
            while True:
                self._came.clear()
                try:
                    while row := await asyncio.to_thread(self._oldest):
                        await self._send(http, Push.model_validate(row["push"]))
                        await asyncio.to_thread(self._done, row["delivery"])
                    wait = LOOK
                except (aiohttp.ClientError, TimeoutError, SQLAlchemyError, KeyError) as error:
                    logging.getLogger("driftline").warning("A push waits for Prefect: %r", error)
                    wait = min(2 * wait, MOST_WAIT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), wait)

    async def _send(self, http: aiohttp.ClientSession, push: Push) -> None:
        """Have the run created, or found, if an earlier try did it and we never heard."""
        async with http.get(f"{self._api}/deployments/name/{DEPLOYMENT}") as found:
            found.raise_for_status()
            deployment = (await found.json())["id"]
        async with http.post(f"{self._api}/deployments/{deployment}/create_flow_run", json=push.run) as made:
            if made.status in NEVER:
                said = (await made.text())[:300]
                logging.getLogger("driftline").error("Prefect does not take push %s: %s", push.id, said)
                return
            made.raise_for_status()

    def _check_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        if not self._secret:
            raise Refusal(403, f"No pushes are taken here: {SECRET} is not set.", code="no_secret")
        signed = headers.get("x-hub-signature-256", "")
        ours = "sha256=" + hmac.new(self._secret, body, "sha256").hexdigest()
        if not hmac.compare_digest(signed.encode(), ours.encode()):
            raise Refusal(401, "X-Hub-Signature-256 is not the body's HMAC under our secret.", code="bad_signature")

    def _insert(self, row: dict[str, Any]) -> None:
        with self._store.writing() as to:
            to.execute(insert(pushes).values(**row))

    def _oldest(self) -> RowMapping | None:
        """Of the pushes that Prefect was not told of."""
        with self._store.reading() as of:
            left = select(pushes).where(pushes.c.delivered_at.is_(None)).order_by(pushes.c.at).limit(1)
            return of.execute(left).mappings().first()

    def _done(self, delivery: str) -> None:
        with self._store.writing() as to:
            to.execute(update(pushes).where(pushes.c.delivery == delivery).values(delivered_at=now()))


def read_push(delivery: str, body: bytes) -> Push:
    """Raises: Refusal when the body is no push in GitHub's form."""
    try:
        said = orjson.loads(body)
        return Push(
            id=delivery,
            ref=said["ref"],
            old=said["before"],
            new=said["after"],
            repository=str((said.get("repository") or {}).get("full_name") or "")[:200],
            who=str((said.get("pusher") or {}).get("name") or "")[:120],
        )
    except ValidationError as error:
        told = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise Refusal(400, f"This is no push: {told}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(400, f"This is no push in GitHub's form, as application/json: {error!r}") from error
