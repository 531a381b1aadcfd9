"""The service in a language model's Bento: OpenAI's chat completions, from a CPU engine of its own or from vLLM.

What it takes: chat_request.py; its routes: chat_app.py; its engine is watched: engine_watch.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.serving.chat_app import ChatApp
from tasks.language.engine import PATIENCE
from tasks.language.released_model import ReleasedModel

if TYPE_CHECKING:
    from bentoml import Service


def make_service(folder: Path) -> Service[Any]:
    """Make the BentoML service of the release in `folder`, which holds its manifest, weights, prompt and schema."""
    import bentoml

    release = ReleasedModel(folder)
    app = ChatApp(release)

    class Predictor:
        def __init__(self) -> None:
            app.watch.open()

        async def __is_ready__(self) -> bool:
            return app.watch.ready

        @bentoml.on_shutdown
        async def stop(self) -> None:
            await app.close()

        @bentoml.api(route="/release")
        async def release(self) -> dict[str, str]:
            """Tell which release answers here; GET works too."""
            return app.about

    service = bentoml.service(
        Predictor,
        name=release.case,
        traffic={"timeout": PATIENCE},
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": "/v1/"},  # else each token of a stream is a span, which nobody collects
    )
    service.mount_asgi_app(app.starlette(), path="/", name="chat")
    return service
