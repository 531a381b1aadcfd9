"""llama.cpp's OpenAI-compatible server as a child process that ends with its parent, and its client."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import DataError, Unavailable
from tasks.core.files import tail, temporary_folder
from tasks.core.sockets import http_client
from tasks.language import engine_server
from tasks.language.messages import Messages

if TYPE_CHECKING:
    import httpx

ENGINE_TIMEOUT = 300.0  # seconds for loading, and for one answer
PROBE_TIMEOUT = 4.0  # seconds until a probe times out
PROBE_INTERVAL = 2.5  # seconds between two probes; more frequent ones keep it from noticing closed connections
MAX_SILENCE = 6.0  # seconds without an HTTP response after which the process counts as hung
MAX_STUCK = 20.0  # seconds without a response of its main loop: one call's grammar may block all others for good


@dataclass(frozen=True)
class Completion:
    """One answer of the engine."""

    text: str
    tokens_in: int
    tokens_cached: int  # part of tokens_in that came from the cache
    tokens_out: int
    seconds: float
    finish: str  # stop, or length
    logprobs: list[tuple[int, float]] | None = None  # token id and log-probability, if requested


class Engine:
    """A running engine: renders, counts and answers conversations."""

    def __init__(
        self, client: httpx.Client, address: str, key: str, slots: int, log: Path, process: subprocess.Popen[bytes]
    ) -> None:
        self.address = address  # of the OpenAI-compatible API, without /v1
        self.key = key  # its bearer token
        self.slots = slots
        self._client = client
        self._log = log
        self._process = process
        self._answered = dict.fromkeys(("/health", "/slots"), time.monotonic())
        self._probed = 0.0

    @property
    def completions_url(self) -> str:
        return f"{self.address}/v1/chat/completions"

    def fault(self) -> str:
        """The reason why the engine can't answer: its process ended or hangs; empty while it works.

        Takes up to twice PROBE_TIMEOUT.
        """
        import httpx

        if (code := self._process.poll()) is not None:
            return f"its process ended with {code}"
        if time.monotonic() - self._probed < PROBE_INTERVAL:
            return ""
        self._probed = time.monotonic()
        for path, limit in (("/health", MAX_SILENCE), ("/slots", MAX_STUCK)):
            try:
                self._client.get(path, timeout=PROBE_TIMEOUT).raise_for_status()
                self._answered[path] = time.monotonic()
            except httpx.HTTPError as error:
                if (silent := time.monotonic() - self._answered[path]) > limit:
                    return f"{path} did not answer in {silent:.0f} s ({type(error).__name__})"
        return ""

    def kill(self) -> None:
        """Kill the process, even when it hangs or is stopped."""
        self._process.kill()

    @cached_property
    def supports_tools(self) -> bool:
        """Whether the chat template renders tools; without, llama.cpp would ignore them."""
        import httpx

        try:
            return bool(self._client.get("/props").json()["chat_template_caps"]["supports_tools"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return False

    def warm(self, messages: Messages) -> None:
        """Answer with one token in each slot, which then has these messages in its cache."""
        self.chat_batch([messages] * self.slots, max_tokens=1)

    def render(self, messages: Messages) -> str:
        """The prompt, rendered by the model's chat template."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def tokens(self, messages: Messages) -> list[int]:
        """The token ids of the rendered prompt."""
        body = {"content": self.render(messages), "add_special": True, "parse_special": True}
        return list(self._post("/tokenize", body)["tokens"])

    def chat(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        logprobs: bool = False,
        **sampling: Any,
    ) -> Completion:
        """Answer a conversation; with `schema`, the response is constrained to that JSON.

        sampling: temperature (0: greedily), seed and stop, as in OpenAI's requests.

        Raises: DataError when it exceeds the context or the schema is invalid; Unavailable without an engine.
        """
        body = _request_body(messages, max_tokens, schema) | {"temperature": 0.0, "seed": 0, **sampling}
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": 1}
        start = time.monotonic()
        answer = self._post("/v1/chat/completions", body)
        seconds = time.monotonic() - start
        choice, usage = answer["choices"][0], answer["usage"]
        token_logprobs = (choice.get("logprobs") or {}).get("content") or []
        return Completion(
            text=choice["message"].get("content") or "",
            tokens_in=usage["prompt_tokens"],
            tokens_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            tokens_out=usage["completion_tokens"],
            seconds=seconds,
            finish=choice["finish_reason"],
            logprobs=[(each["id"], each["logprob"]) for each in token_logprobs] if logprobs else None,
        )

    def stream(
        self, messages: Messages, *, max_tokens: int, schema: dict[str, Any] | None = None, **sampling: Any
    ) -> Iterator[str]:
        """Stream the response that `chat` gives with seed 0."""
        import httpx

        body = _request_body(messages, max_tokens, schema) | {"temperature": 0.0, **sampling, "stream": True}
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if not response.is_success:
                    response.read()
                    raise self._unreachable(f"HTTP {response.status_code}: {_message(response)}")
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        for choice in json.loads(line[6:])["choices"]:
                            yield choice["delta"].get("content") or ""
        except httpx.TransportError as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error

    def chat_batch(self, conversations: Iterable[Messages], **options: Any) -> list[Completion]:
        """Answer conversations, one per slot at a time; responses are in the order of the conversations."""
        with ThreadPoolExecutor(self.slots) as pool:
            return list(pool.map(lambda messages: self.chat(messages, **options), conversations))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            response = self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error
        if response.status_code == 400:
            raise DataError(
                "The engine can't answer this.",
                where=path,
                found=_message(response),
                todo="Shorten the messages, or correct the schema.",
            )
        if not response.is_success:
            raise self._unreachable(f"HTTP {response.status_code}: {_message(response)}")
        return dict(response.json())

    def _unreachable(self, reason: str) -> Unavailable:
        return Unavailable(
            f"The engine does not answer: {reason}.",
            where=f"{self.address}, log {self._log}",
            found=tail(self._log) or "an empty log",
            todo="Find the cause in the log, and start again.",
        )


@contextmanager
def start_engine(
    gguf: Path,
    *,
    threads: int,
    slots: int,
    context: int,
    name: str = "model",
    log: Path | None = None,
) -> Iterator[Engine]:
    """Serve a GGUF file on a free loopback port until the block ends; `context` is in tokens per slot.

    Raises: DataError when the file does not exist; Unavailable with the end of the log when the server fails to start.
    """
    import httpx

    if not gguf.is_file():
        raise DataError("There is no model to serve.", where=str(gguf), todo="Run the step that creates it again.")
    key = secrets.token_hex(16)  # every local program and every web page can reach the loopback
    settings = {"gguf": str(gguf), "threads": threads, "slots": slots, "context": context, "key": key, "name": name}
    with ExitStack() as stack:
        if log is None:
            log = Path(stack.enter_context(temporary_folder("engine"))) / "engine.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process = _start(log)
        stack.callback(_stop, process)
        address = _read_address(process, settings, log)
        client = http_client(
            address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(ENGINE_TIMEOUT, connect=10),
        )
        yield Engine(stack.enter_context(client), address, key, slots, log, process)


def _start(log: Path) -> subprocess.Popen[bytes]:
    # a separate process: a crash in native code must not end the run
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # waiting threads must soon sleep: on busy cores, spinning made two threads 15 times slower
    environment = {"GOMP_SPINCOUNT": "2000", **os.environ, "PYTHONPATH": path}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", engine_server.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the parent, which then stops the engine
        )


def _read_address(process: subprocess.Popen[bytes], settings: dict[str, Any], log: Path) -> str:
    """Send the settings, and wait for the address."""
    assert process.stdin
    assert process.stdout
    reason = f"no answer in {ENGINE_TIMEOUT:.0f} s"
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], ENGINE_TIMEOUT)[0]:
            if address := process.stdout.readline().decode().strip():
                return address
            reason = "it could not start"
    except BrokenPipeError:
        reason = "it could not start"
    raise Unavailable(
        f"The engine did not get ready: {reason}.",
        where=f"{settings['gguf']}, log {log}",
        found=tail(log) or "an empty log",
        todo="Correct what the log names; for a damaged model file, run the step that creates it again.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes the pipes; the engine ends at the end of its input
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _request_body(messages: Messages, max_tokens: int, schema: dict[str, Any] | None) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": list(messages), "max_tokens": max_tokens}
    if schema is not None:
        json_schema = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    return body


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
