"""Client of a model behind an OpenAI-compatible address, with the interface of a local engine."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.core.errors import DataError, Unavailable
from tasks.language.chat_completion import ALLOWED, estimate_usage, read_chunk, read_completion
from tasks.language.engine import ENGINE_TIMEOUT, PROBE_TIMEOUT, Completion
from tasks.language.messages import Messages
from tasks.language.retry import is_passing, pause_before
from tasks.language.upstream import Upstream

if TYPE_CHECKING:
    import httpx

PROBE_INTERVAL = 5.0  # seconds between two probes of an address
MAX_UNREACHABLE = 12.0  # seconds without a connection after which an address counts as gone
MAX_BYTES = 32 << 20  # of a response


class RemoteEngine:
    """A model behind an address. It counts and renders nothing by itself: its server does."""

    def __init__(self, client: httpx.Client, upstream: Upstream, *, slots: int = 1, timeout: float = ENGINE_TIMEOUT):
        self.upstream = upstream
        self.slots = slots
        self.fingerprints: set[str] = set()  # of all responses
        self._client, self._timeout = client, timeout
        self._reached = time.monotonic()
        self._probed = 0.0

    @property
    def completions_url(self) -> str:
        return f"{self.upstream.current_address}/chat/completions"

    @property
    def key(self) -> str:
        """The bearer token. Raises: Unavailable when it is not set."""
        return self.upstream.secret

    def fault(self) -> str:
        """Why the address can't be reached; empty while it accepts connections, however slowly it answers."""
        if time.monotonic() - self._probed < PROBE_INTERVAL:
            return ""
        self._probed = time.monotonic()
        try:
            self.connect()
        except Unavailable as error:
            if (silent := time.monotonic() - self._reached) > MAX_UNREACHABLE:
                return f"{error.found} for {silent:.0f} s"
        return ""

    def connect(self) -> None:
        """Open a connection, and close it. Raises: Unavailable."""
        parts = urlsplit(self.upstream.current_address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), PROBE_TIMEOUT).close()
        except OSError as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from error
        self._reached = time.monotonic()

    def models(self) -> list[dict[str, Any]]:
        """The server's list of models; empty when it has none that can be read."""
        import httpx

        try:
            listed = self._client.get(f"{self.upstream.current_address}/models", timeout=PROBE_TIMEOUT).json()["data"]
            return [each for each in listed if isinstance(each, dict)]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return []

    def kill(self) -> None:
        """Do nothing: the server is no child process, and is used again when it can be reached."""

    def warm(self, _: Messages) -> None:
        """Do nothing: a first request would be paid for."""

    def chat(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
    ) -> Completion:
        """Answer a conversation; with `schema`, the request asks for that JSON.

        Raises: DataError when the server refuses it; Unavailable when there is no answer, or none that can be read.
        """
        body = chat_body({"messages": list(messages)}, schema)
        body |= {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
        body |= {"stop": list(stop)} if stop else {}
        content = json.dumps(self.upstream.request_body(body)).encode()
        start = time.monotonic()
        raw = self._post(content)
        seconds = time.monotonic() - start
        try:
            answer = read_completion(raw)
        except ValueError as error:
            raise self._unavailable(str(error), "The model's server answers, but with no chat completion.") from error
        if answer.system_fingerprint:
            self.fingerprints.add(answer.system_fingerprint)
        usage: dict[str, Any] = answer.usage.model_dump() if answer.usage else estimate_usage(content, answer.text)
        return Completion(
            text=answer.text,
            tokens_in=usage["prompt_tokens"],
            tokens_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            tokens_out=usage["completion_tokens"],
            seconds=seconds,
            finish=answer.finish,
        )

    def chat_batch(self, conversations: Iterable[Messages], **options: Any) -> list[Completion]:
        """Answer conversations, `slots` at a time; responses are in the order of the conversations."""
        with ThreadPoolExecutor(self.slots) as pool:
            return list(pool.map(lambda messages: self.chat(messages, **options), conversations))

    def stream(
        self, messages: Messages, *, max_tokens: int, schema: dict[str, Any] | None = None, **sampling: Any
    ) -> Iterator[str]:
        """Stream the response that `chat` gives with seed 0."""
        import httpx

        body = chat_body({"messages": list(messages)}, schema)
        body |= {"temperature": 0.0, "seed": 0, **sampling, "max_tokens": max_tokens, "stream": True}
        try:
            with self._client.stream("POST", self.completions_url, json=self.upstream.request_body(body)) as response:
                if not response.is_success:
                    response.read()
                    raise self._refused(response.status_code, response.content)
                for line in response.iter_lines():
                    if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        for choice in read_chunk(data.encode()).choices:
                            yield choice.delta.content or ""
        except ValueError as error:
            raise self._unavailable(str(error), "The model's server sends no stream of a chat.") from error
        except httpx.TransportError as error:
            raise self._unavailable(f"{type(error).__name__}: {error}") from error

    def _post(self, content: bytes) -> bytes:
        """The body of a successful response; what may pass is tried again within the timeout."""
        import httpx

        until, attempt = time.monotonic() + self._timeout, 0
        while True:
            attempt += 1
            headers: httpx.Headers | None = None
            try:
                status, headers, body = self._attempt(content, until)
                if status == 200:
                    return body
                error: DataError | Unavailable = self._refused(status, body)
                if not is_passing(status, body):
                    raise error
            except httpx.TransportError as fault:
                error = self._unavailable(f"{type(fault).__name__}: {fault}")
            pause = pause_before(attempt, until - time.monotonic(), headers)
            if pause is None:
                raise error
            time.sleep(pause)

    def _attempt(self, content: bytes, until: float) -> tuple[int, httpx.Headers, bytes]:
        import httpx

        body = bytearray()
        left = max(0.001, until - time.monotonic())
        timeout = httpx.Timeout(left, connect=min(10.0, left))
        with self._client.stream("POST", self.completions_url, content=content, timeout=timeout) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise self._unavailable(f"more than {MAX_BYTES >> 20} MB", "The model's server sends no end.")
                if time.monotonic() > until:  # a server that sends a byte now and then never times out by itself
                    raise httpx.ReadTimeout(f"no whole answer in {self._timeout:.0f} s")
            return response.status_code, response.headers, bytes(body)

    def _refused(self, status: int, body: bytes) -> DataError | Unavailable:
        found = f"HTTP {status}: {error_text(body)}"
        if status in (400, 413, 422):
            return DataError(
                "The model's server refuses this.",
                where=self.completions_url,
                found=found,
                todo="Shorten the messages, or correct what it names: the schema, or model.parameters.",
            )
        if status in (401, 403):
            todo = f"Check the key in the variable {self.upstream.key}." if self.upstream.key else "Set model.key."
            return self._unavailable(found, "The model's server refuses the key.", todo)
        if status == 404:
            todo = f"Check that the server has the model {self.upstream.model}, and that the path ends with /v1."
            return self._unavailable(found, "The model's server has no such model or address.", todo)
        return self._unavailable(found)

    def _unavailable(
        self, found: str, what: str = "The model's server does not answer.", todo: str = ""
    ) -> Unavailable:
        return Unavailable(
            what,
            where=f"{self.completions_url}, model {self.upstream.model}",
            found=found,
            allowed=ALLOWED if "answers" in what else "",
            todo=todo or "Check that it runs and that model.source names it, then try again.",
        )


@contextmanager
def connect_upstream(upstream: Upstream, *, slots: int = 1, timeout: float = ENGINE_TIMEOUT) -> Iterator[RemoteEngine]:
    """An engine that sends its requests to this server until the block ends. It connects with the first request.

    Raises: Unavailable when the key is not set.
    """
    import httpx

    external = upstream.current_address.startswith("https://")
    with httpx.Client(
        headers={**upstream.headers, "content-type": "application/json"},
        timeout=httpx.Timeout(timeout, connect=10),
        verify=ssl.create_default_context() if external else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=external,  # the proxy that leads out of a company's network
        limits=httpx.Limits(max_connections=slots + 1),
    ) as client:
        yield RemoteEngine(client, upstream, slots=slots, timeout=timeout)


def chat_body(body: dict[str, Any], schema: dict[str, Any] | None) -> dict[str, Any]:
    """A request, with the JSON schema that its answer must follow."""
    if schema is None:
        return body
    json_schema = {"name": "answer", "strict": True, "schema": schema}
    return {**body, "response_format": {"type": "json_schema", "json_schema": json_schema}}


def error_text(body: bytes) -> str:
    """The message of an error in OpenAI's form, or the beginning of what came instead."""
    try:
        return str(json.loads(body)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return " ".join(body[:300].decode(errors="replace").split())
