"""The OpenAPI document, with examples that can be sent as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from services.gateway.parameters import MAX_TOKENS
from services.gateway.rate_limits import FEEDBACK
from services.gateway.streaming import EVENTS
from services.store.approvals import ApprovalDecision
from services.store.feedback import MAX_RECORDS, Feedback
from tasks.language.chat_request import ChatCompletionRequest
from tasks.language.messages import USER, chat_message

TEXT = {"type": "string"}
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
ROWS = {
    "type": "object",
    "required": ["rows"],
    "properties": {"rows": {"type": "array", "minItems": 1, "maxItems": 10_000, "items": {"type": "object"}}},
}
PREDICTIONS = {
    "type": "object",
    "required": ["request_id", "release", "predictions"],
    "properties": {"request_id": TEXT, "release": TEXT, "predictions": {"type": "array"}},
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
    400: "It is not what is taken; it says where.",
    401: "No key, or an unknown one.",
    403: "The key may not.",
    404: "There is no such model.",
    409: "It can't be done so, or there is too much of it already; it says why.",
    408: "The request did not arrive in time.",
    413: "Too large.",
    421: "The gateway does not answer to this Host.",
    429: "A limit is reached, or a budget reserved or spent; Retry-After says when to come again, if that helps.",
    502: "The model failed.",
    503: "The model can't be reached, or too many wait for it; Retry-After says when to come again.",
    504: "The model did not answer in time.",
}


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    case = {"name": "case", "in": "path", "required": True, "schema": TEXT}
    entity = {
        "name": "x-entity",
        "in": "header",
        "schema": TEXT,
        "description": "Whom it is about: sticky in a rollout.",
    }
    model = {"name": "model", "in": "path", "required": True, "schema": TEXT}
    request = {"name": "request_id", "in": "path", "required": True, "schema": TEXT}
    rows = {"rows": [{"example_id": "one", "carrier": "UA"}]}
    hello = {"model": "CASE", "messages": [chat_message(USER, "Hello")]}
    words = {"model": "CASE", "input": ["Where is my parcel?", "It has not arrived."]}
    asked, shared = _chat()
    chat = _post("Chat, as OpenAI's", asked, hello, {"type": "object"}, [entity])
    chat["post"]["responses"]["200"]["content"][EVENTS] = {"schema": {}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Driftline gateway", "version": "1"},
        "paths": {
            "/v1/predict/{case}": _post("Predict rows", ROWS, rows, PREDICTIONS, [case, entity]),
            "/v1/chat/completions": chat,
            "/v1/embeddings": _post("Embeddings, as OpenAI's", EMBEDDINGS, words, VECTORS, [entity]),
            "/v1/models": _get("Language models", guarded=True),
            "/v1/models/{model}": _get("A language model", guarded=True, parameters=[model]),
            "/v1/feedback/{request_id}": _post(
                f"Tell an outcome or a judgement: {FEEDBACK} a minute, {MAX_RECORDS} about one request, 128 kB each",
                Feedback.model_json_schema(),
                {"label": 1},
                {"type": "object"},
                [request],
                201,
            ),
            "/hooks/git": _hook(),
            "/v1/approvals": _get("What waits for a person's word", guarded=True),
            "/v1/approvals/{case}": _post(
                "Approve or reject a release",
                ApprovalDecision.model_json_schema(),
                {"decision": "approve", "evidence": "0123456789ab"},
                {"type": "object"},
                [case],
                201,
            ),
            "/healthz": _get("Does the process live?"),
            "/readyz": _get("Can it answer? For operators: which cases?"),
            "/metrics": _get("Prometheus's figures", guarded=True, kind="text/plain"),
            "/metrics/releases": _get("Prometheus's figures of the releases", guarded=True, kind="text/plain"),
        },
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}, "schemas": shared},
    }


def _chat() -> tuple[dict[str, Any], dict[str, Any]]:
    """What a release takes, and what it refers to; the gateway needs the model's name, and reads the user."""
    asked = ChatCompletionRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    shared = asked.pop("$defs")
    asked["required"] = ["model", "messages"]
    asked["properties"]["model"] = {**TEXT, "description": "A case, or CASE:DIGEST for one release of it."}
    for name in ("max_tokens", "max_completion_tokens"):
        asked["properties"][name] = {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}, {"type": "null"}]
        }
    asked["properties"]["user"]["description"] = "Whoever has the same one gets the same release of a rollout."
    return asked, shared


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
                str(status): {"description": "Answered.", "content": {"application/json": {"schema": answer}}},
                **{str(code): _error(text) for code, text in REFUSED.items()},
            },
        }
    }


def _hook() -> dict[str, Any]:
    names = ("x-hub-signature-256", "x-github-event", "x-github-delivery")
    headers = [{"name": name, "in": "header", "schema": TEXT} for name in names]
    hook = _post("A git push, as GitHub's signed webhook tells it", PUSH, PUSHED, {"type": "object"}, headers, 202)
    hook["post"]["security"] = []  # the signature is it
    hook["post"]["responses"]["409"] = _error("It came before.")
    return hook


def _get(
    title: str, *, guarded: bool = False, kind: str = "application/json", parameters: Sequence[Any] = ()
) -> dict[str, Any]:
    codes = (401, 403, 421) if guarded else (421, 503)
    refused = {str(code): _error(REFUSED[code]) for code in (*codes, *([404] if parameters else []))}
    answered = {"200": {"description": "Answered.", "content": {kind: {"schema": {}}}}}
    security: list[Any] = [{"key": []}, {}] if guarded else []
    operation = {"summary": title, "security": security, "responses": answered | refused}
    return {"get": operation | ({"parameters": list(parameters)} if parameters else {})}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": ERROR}}}
