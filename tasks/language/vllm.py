"""Client of a vLLM server, which runs on another machine or in its own environment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import Unavailable
from tasks.language.engine import MAX_SILENCE, PROBE_TIMEOUT
from tasks.language.messages import Messages

if TYPE_CHECKING:
    import httpx

URL_VARIABLE, API_KEY_VARIABLE = "DRIFTLINE_VLLM_URL", "VLLM_API_KEY"  # the key's name is vLLM's own


class VllmServer:
    """A model on a vLLM server, with the interface of a local engine."""

    def __init__(self, client: httpx.Client, address: str, key: str, model: str, as_of: str) -> None:
        self.address = address  # of the OpenAI-compatible API, without /v1
        self.key = key  # its bearer token
        self._client = client
        self._model = model
        self._as_of = as_of
        self._answered = time.monotonic()

    supports_tools = False  # it is started without a parser of calls

    @property
    def completions_url(self) -> str:
        return f"{self.address}/v1/chat/completions"

    def fault(self) -> str:
        """The reason why the server can't answer; empty until it was silent for MAX_SILENCE seconds."""
        import httpx

        try:
            self._client.get("/health", timeout=PROBE_TIMEOUT).raise_for_status()
            self._answered = time.monotonic()
        except httpx.HTTPError as error:
            if (silent := time.monotonic() - self._answered) > MAX_SILENCE:
                return f"{self.address} did not answer in {silent:.0f} s ({type(error).__name__})"
        return ""

    def kill(self) -> None:
        """Do nothing: the server is not a child process, and is used again when it answers."""

    def tokens(self, messages: Messages) -> list[int]:
        """The token ids of the rendered prompt."""
        return list(self.request("POST", "/tokenize", {"model": self._model, "messages": list(messages)})["tokens"])

    def models(self) -> list[str]:
        """Names of the served models."""
        return [each["id"] for each in self.request("GET", "/v1/models")["data"]]

    def load(self, adapter: Path) -> None:
        """Request the server to load the adapter; it may refuse, or not see the folder."""
        import httpx

        with suppress(httpx.HTTPError):
            body = {"lora_name": self._model, "lora_path": str(adapter)}
            self._client.post("/v1/load_lora_adapter", json=body, timeout=120)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON response to a request. Raises: Unavailable."""
        import httpx

        try:
            response = self._client.request(method, path, json=body)
            return dict(response.raise_for_status().json())
        except (httpx.HTTPError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
            raise _unavailable_error(self._model, f"{self.address}{path}", found, self._as_of) from error


@contextmanager
def connect_vllm(model: str, *, as_of: str = "", base: str = "", adapter: Path | None = None) -> Iterator[VllmServer]:
    """Connect to the server that the environment names, and require that it serves the model.

    adapter: loaded when the server has the base model alone.
    Raises: Unavailable with the command that starts it, and the as-of of the release.
    """
    import httpx

    address, key = os.environ.get(URL_VARIABLE, "").rstrip("/"), os.environ.get(API_KEY_VARIABLE, "")
    if not address:
        raise _unavailable_error(model, URL_VARIABLE, "no URL is set", as_of)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=address, headers=headers, timeout=30, trust_env=False) as client:
        server = VllmServer(client, address, key, model, as_of)
        models = server.models()
        if adapter and model not in models and base in models:
            server.load(adapter)
            models = server.models()
        if model not in models:
            raise _unavailable_error(model, address, ", ".join(models) or "no model", as_of)
        yield server


def _unavailable_error(model: str, where: str, found: str, as_of: str) -> Unavailable:
    again = f" with --as-of {as_of}" if as_of else ""  # with another as-of it would be another release
    return Unavailable(
        f"No vLLM server answers for {model}.",
        where=where,
        found=found,
        todo=f"Run the command that `driftline vllm {model}` prints, set {URL_VARIABLE}, and try again{again}.",
    )
