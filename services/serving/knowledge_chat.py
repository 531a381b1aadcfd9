"""Chat with a knowledge base: passages are searched first, and the answer is checked before the client gets it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from services.serving.chat_error import ChatError
from services.serving.knowledge import KnowledgeBase, citation, passage_result, retrieval_of
from services.serving.retrieval import Retrieval
from tasks.knowledge.answers.answerer import Answer, Prepared
from tasks.knowledge.labels import Labels
from tasks.language.chat_request import ChatCompletionRequest, Message
from tasks.language.messages import ASSISTANT, chat_message


class EngineCalls(Protocol):
    """A client of an engine."""

    async def forward(self, chat: ChatCompletionRequest) -> tuple[Any, float]:
        """The whole response, or a stream's first bytes and the rest; and the seconds lost on engines that died."""
        ...


@dataclass(frozen=True)
class KnowledgeAnswer:
    """A response to a chat, and what was retrieved for it."""

    response: dict[str, Any] | None  # None: the stream has it
    retrieval: Retrieval
    lost: float = 0.0  # seconds
    stream: Any = None  # first bytes and the rest, of an answer that is not checked
    prepared: Prepared | None = None  # of a stream


class KnowledgeChat:
    """Answers chats from a knowledge base: itself, or by an engine."""

    def __init__(self, knowledge: KnowledgeBase, engine: EngineCalls, tag: str) -> None:
        self._knowledge, self._engine, self._tag = knowledge, engine, tag

    async def answer(self, chat: ChatCompletionRequest, labels: Labels) -> KnowledgeAnswer:
        """Raises: ChatError."""
        messages = [{"role": each.role, "content": each.content or ""} for each in chat.messages]
        prepared, tokens, guarded = await self._knowledge.prepare(messages, labels)
        if prepared.answer is not None or prepared.messages is None:
            answer = await self._knowledge.finish(prepared)
            response = self._add(self._response(answer, tokens), prepared, chat)
            return KnowledgeAnswer(response, retrieval_of(prepared.hits, answer, guarded=guarded))
        held = self._knowledge.is_checked or not chat.stream
        changes: dict[str, Any] = {"messages": list(map(Message.model_validate, prepared.messages))}
        if held:
            changes |= {"stream": False, "stream_options": None}
        result, lost = await self._engine.forward(chat.model_copy(update=changes))
        if not held:
            return KnowledgeAnswer(None, retrieval_of(prepared.hits, guarded=guarded), lost, result, prepared)
        checked = [await self._check(choice, prepared) for choice in result["choices"]]
        response = self._add({**result, "choices": [choice for choice, _ in checked]}, prepared, chat)
        retrieval = retrieval_of(prepared.hits, checked[0][1], by_model=True, guarded=guarded)
        return KnowledgeAnswer(response, retrieval, lost)

    async def _check(self, choice: dict[str, Any], prepared: Prepared) -> tuple[dict[str, Any], Answer]:
        """A choice with its answer checked; an answer that is replaced has no log-probabilities."""
        text = choice["message"].get("content") or ""
        answer = await self._knowledge.finish(prepared, text)
        message = {**choice["message"], "content": answer.text, "citations": list(map(citation, answer.citations))}
        checked = {**choice, "message": message}
        if answer.text != text:
            checked.pop("logprobs", None)
            checked["finish_reason"] = "stop"
        return checked, answer

    def _response(self, answer: Answer, tokens: int) -> dict[str, Any]:
        """A response that no engine wrote; its tokens are those of the question that the embedder read."""
        message = {**chat_message(ASSISTANT, answer.text), "citations": list(map(citation, answer.citations))}
        return {
            "id": f"chatcmpl-{secrets.token_hex(16)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._tag,
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
        }

    def _add(self, response: dict[str, Any], prepared: Prepared, chat: ChatCompletionRequest) -> dict[str, Any]:
        return response | ({"passages": list(map(passage_result, prepared.hits))} if chat.include_passages else {})


def check_request(chat: ChatCompletionRequest, knowledge: KnowledgeBase | None) -> None:
    """Raises: ChatError for passages of a release without a knowledge base, and for tools of one with it."""
    if chat.tools and knowledge is not None:
        raise ChatError(400, "This release answers from its documents, and calls no tools.", param="tools")
    if chat.include_passages and knowledge is None:
        raise ChatError(400, "This release has no knowledge base, so no passages.", param="include_passages")


def stream_events(response: Mapping[str, Any], *, include_usage: bool) -> list[dict[str, Any]]:
    """A whole response as the events of OpenAI's stream; its last choice has the citations."""
    common = {name: response[name] for name in ("id", "created", "model", "release") if name in response}
    common["object"] = "chat.completion.chunk"

    extra = {"passages": response["passages"]} if "passages" in response else {}
    events: list[dict[str, Any]] = []
    for choice in response["choices"]:
        message, rest = choice["message"], {name: choice[name] for name in ("index", "logprobs") if name in choice}
        text = {"role": ASSISTANT, "content": message["content"]}
        events.append({**common, "choices": [{**rest, "delta": text, "finish_reason": None}]})
        last = {"index": choice["index"], "delta": {"citations": message["citations"]}}
        events.append({**common, "choices": [{**last, "finish_reason": choice["finish_reason"]}]} | extra)
    return [*events, {**common, "choices": [], "usage": response["usage"]}] if include_usage else events
