"""The OpenAPI document, with examples that can be sent as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from services.gateway.parameters import MAX_TOKENS
from services.gateway.rate_limits import FEEDBACK
from services.gateway.streaming import EVENT_STREAM
from services.serving.retrieval import MAX_PASSAGES, MAX_QUERY, METHODS
from services.serving.schema import NOTES
from services.store.approvals import ApprovalDecision
from services.store.feedback import MAX_RECORDS, Feedback
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.messages import USER, chat_message

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
PASSAGE = {
    **dict.fromkeys(("document", "title", "heading", "url", "passage_id", "text"), TEXT),
    "score": {**NUMBER, "description": "By the method; only comparable within one response."},
    "similarity": {**NUMBER, "description": "Cosine of query and passage."},
}
EMBEDDINGS = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {**TEXT, "description": "A case with an embedder, or CASE:DIGEST for one release of it."},
        "input": {"anyOf": [TEXT, {"type": "array", "minItems": 1, "items": TEXT}]},
        "encoding_format": {"enum": ["float", "base64"]},
        "user": TEXT,
    },
}
VECTORS = {
    "type": "object",
    "required": ["data", "model", "usage"],
    "properties": {
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer"}, "embedding": {"type": ["array", "string"]}},
            },
        },
        "model": TEXT,
        "usage": {"type": "object", "properties": {"prompt_tokens": {"type": "integer"}}},
    },
}
SEARCH = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": {**TEXT, "minLength": 1, "maxLength": MAX_QUERY},
        "count": {"type": "integer", "minimum": 1, "maximum": MAX_PASSAGES, "default": 5},
        "method": {"enum": list(METHODS), "description": "Default: the release's."},
        "user": TEXT,
    },
}
HITS = {
    "type": "object",
    "required": ["release", "results", "usage"],
    "properties": {
        "release": TEXT,
        "results": {"type": "array", "items": {"type": "object", "properties": PASSAGE}},
        "usage": {"type": "object", "properties": {"prompt_tokens": {"type": "integer"}}},
    },
}
ROWS = {
    "type": "object",
    "required": ["rows"],
    "properties": {"rows": {"type": "array", "minItems": 1, "maxItems": 10_000, "items": {"type": "object"}}},
}
PREDICTIONS = {
    "type": "object",
    "required": ["request_id", "release", "predictions"],
    "properties": {
        "request_id": TEXT,
        "release": TEXT,
        "predictions": {"type": "array"},
        **{name: TypeAdapter(kind).json_schema() | {"description": about} for name, (kind, about) in NOTES.items()},
    },
}
PUSH = {
    "type": "object",
    "required": ["ref", "before", "after"],
    "properties": dict.fromkeys(("ref", "before", "after"), TEXT),
}
PUSHED = {"ref": "refs/heads/main", "before": "0" * 40, "after": "1" * 40}
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"message": TEXT, "type": TEXT, "code": {}, "param": {}}}},
}
REFUSED = {
    400: "The request is invalid; the error names the field.",
    401: "The API key is missing, unknown or revoked.",
    403: "The API key lacks the role.",
    404: "The model does not exist.",
    409: "The request conflicts with the current state, or a limit is reached; the error names it.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    421: "The Host header is not allowed.",
    429: "A rate limit or a budget is exhausted; Retry-After has the seconds to wait.",
    502: "The model failed.",
    503: "The model is unavailable or overloaded; Retry-After has the seconds to wait.",
    504: "The model did not answer in time.",
}


@cache
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    case = {"name": "case", "in": "path", "required": True, "schema": TEXT}
    entity = {
        "name": "x-entity",
        "in": "header",
        "schema": TEXT,
        "description": "User or other entity of the request. An entity always gets the same release of a rollout.",
    }
    model = {"name": "model", "in": "path", "required": True, "schema": TEXT}
    request = {"name": "request_id", "in": "path", "required": True, "schema": TEXT}
    rows = {"rows": [{"example_id": "one", "carrier": "UA"}]}
    hello = {"model": "CASE", "messages": [chat_message(USER, "Hello")]}
    words = {"model": "CASE", "input": ["Where is my parcel?", "It has not arrived."]}
    question = {"query": "How do I roll back?", "count": 5}
    request_schema, shared = _chat()
    chat = _post("Create a chat completion (OpenAI's API)", request_schema, hello, {"type": "object"}, [entity])
    chat["post"]["responses"]["200"]["content"][EVENT_STREAM] = {"schema": {}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Driftline gateway", "version": "1"},
        "paths": {
            "/v1/predict/{case}": _post("Predict rows", ROWS, rows, PREDICTIONS, [case, entity]),
            "/v1/chat/completions": chat,
            "/v1/embeddings": _post("Create embeddings (OpenAI's API)", EMBEDDINGS, words, VECTORS, [entity]),
            "/v1/search/{case}": _post("Search the documents of a case", SEARCH, question, HITS, [case, entity]),
            "/v1/models": _get("List the language models", guarded=True),
            "/v1/models/{model}": _get("Retrieve a language model", guarded=True, parameters=[model]),
            "/v1/feedback/{request_id}": _post(
                f"Send the true outcome or a rating: {FEEDBACK} a minute, {MAX_RECORDS} per request, 128 kB each",
                Feedback.model_json_schema(),
                {"label": 1},
                {"type": "object"},
                [request],
                201,
            ),
            "/hooks/git": _hook(),
            "/v1/approvals": _get("List the pending approvals", guarded=True),
            "/v1/approvals/{case}": _post(
                "Approve or reject a release",
                ApprovalDecision.model_json_schema(),
                {"decision": "approve", "evidence": "0123456789ab"},
                {"type": "object"},
                [case],
                201,
            ),
            "/healthz": _get("Check that the gateway runs"),
            "/readyz": _get("Check that the gateway is ready; operators also get the champions"),
            "/metrics": _get("Get the gateway's metrics for Prometheus", guarded=True, kind="text/plain"),
            "/metrics/releases": _get("Get the releases' metrics for Prometheus", guarded=True, kind="text/plain"),
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}, "schemas": shared},
    }


def _chat() -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a chat request and its definitions; the gateway requires the model's name."""
    request_schema = ChatCompletionRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    shared = request_schema.pop("$defs")
    request_schema["required"] = ["model", "messages"]
    request_schema["properties"]["model"] = {**TEXT, "description": "A case, or CASE:DIGEST for one release of it."}
    for name in ("max_tokens", "max_completion_tokens"):
        request_schema["properties"][name] = {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}, {"type": "null"}]
        }
    request_schema["properties"]["user"]["description"] = "The same user always gets the same release of a rollout."
    return request_schema, shared


def _post(
    title: str, schema: Any, example: Any, answer: Any, parameters: list[Any], status: int = 200
) -> dict[str, Any]:
    return {
        "post": {
            "summary": title,
            "security": [{"key": []}, {}],
            "parameters": parameters,
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}},
            "responses": {
                str(status): {"description": "Success.", "content": {"application/json": {"schema": answer}}},
                **{str(code): _error(text) for code, text in REFUSED.items()},
            },
        }
    }


def _hook() -> dict[str, Any]:
    names = ("x-hub-signature-256", "x-github-event", "x-github-delivery")
    headers = [{"name": name, "in": "header", "schema": TEXT} for name in names]
    hook = _post("Receive a git push (GitHub's webhook)", PUSH, PUSHED, {"type": "object"}, headers, 202)
    hook["post"]["security"] = []  # the signature authenticates it
    hook["post"]["responses"]["409"] = _error("The delivery was received before.")
    return hook


def _get(
    title: str, *, guarded: bool = False, kind: str = "application/json", parameters: Sequence[Any] = ()
) -> dict[str, Any]:
    codes = (401, 403, 421) if guarded else (421, 503)
    refused = {str(code): _error(REFUSED[code]) for code in (*codes, *([404] if parameters else []))}
    answered = {"200": {"description": "Success.", "content": {kind: {"schema": {}}}}}
    security: list[Any] = [{"key": []}, {}] if guarded else []
    operation = {"summary": title, "security": security, "responses": answered | refused}
    return {"get": operation | ({"parameters": list(parameters)} if parameters else {})}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": ERROR}}}
