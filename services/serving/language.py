"""The service in a language model's Bento: OpenAI's chat completions, from a CPU engine of its own or from vLLM.

Request types: chat_request.py. Routes: chat_app.py. Calls of the engine: engine_client.py, watched by engine_watch.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from services.serving.chat_app import ChatApp
from tasks.language.engine import ENGINE_TIMEOUT
from tasks.language.released_model import ReleasedModel

if TYPE_CHECKING:
    from bentoml import Service


class ChatService:
    """The process of a language release: it starts and stops the engine of its `app`, which has the routes."""

    app: ClassVar[ChatApp]

    def __init__(self) -> None:
        self.app.open()

    async def __is_ready__(self) -> bool:
        return self.app.ready

    async def stop(self) -> None:
        await self.app.close()

    async def release(self) -> dict[str, str]:
        """Tell which release answers here; GET works too."""
        return self.app.info


def make_service(folder: Path) -> Service[Any]:
    """Make the BentoML service of the release in `folder`, which holds its manifest, weights, prompt and schema."""
    import bentoml

    app = ChatApp(ReleasedModel(folder))
    members = {
        "app": app,
        "stop": bentoml.on_shutdown(ChatService.stop),
        "release": bentoml.api(ChatService.release, route="/release"),
    }
    service = bentoml.service(
        type("Predictor", (ChatService,), members),
        name=app.release.case,
        traffic={"timeout": ENGINE_TIMEOUT},
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": "/v1/"},  # otherwise each token of a stream becomes a span, which nothing collects
    )
    service.mount_asgi_app(app.starlette(), path="/", name="chat")
    return service
