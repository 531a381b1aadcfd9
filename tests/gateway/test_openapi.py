"""The gateway holds what its OpenAPI document says, whatever is sent: Schemathesis tries it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tasks.core.settings import Settings
from tasks.release.results import Release
from tests.gateway.stack import gateway_client

pytestmark = pytest.mark.xdist_group("gateway")

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
OPTIONS = f"--checks {CHECKS},unsupported_method --phases examples,coverage,fuzzing --max-examples 10"
SAME = "--generation-deterministic --request-timeout 60 --no-color"


def of_what_is_there(http: httpx.Client, row: dict) -> dict:
    """The gateway's own document, with names that it knows, so that most calls reach a release; answers are short."""
    document = http.get("/openapi.json").json()
    answered = http.post("/v1/predict/small", json={"rows": [row]}).json()["request_id"]
    document["paths"]["/v1/models/{model}"]["get"]["parameters"][0]["schema"] = {"enum": ["talker", "none"]}
    operations = {path: what["post"] for path, what in document["paths"].items() if "post" in what}
    for path, name in (("/v1/predict/{case}", "small"), ("/v1/feedback/{request_id}", answered)):
        operations[path]["parameters"][0]["schema"] = {"enum": [name]}
    bodies = {path: what["requestBody"]["content"]["application/json"] for path, what in operations.items()}
    bodies["/v1/predict/{case}"]["example"] = {"rows": [row]}
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        bodies[path]["example"]["model"] = "talker"
        bodies[path]["schema"]["properties"]["model"] = {"enum": ["talker"]}
    chat = bodies["/v1/chat/completions"]["schema"]["properties"]
    chat |= {name: what["anyOf"][0] for name, what in chat.items() if "anyOf" in what}  # null is as left out
    chat |= {name: {"enum": [1]} for name in ("max_tokens", "max_completion_tokens")}
    return document


def test_every_request_gets_a_documented_response(settings: Settings, table: Release, talker: Release, tmp_path: Path):
    """Never a 5xx, no status, content type or shape that the document does not name; the same tries each time."""
    row = json.loads((table.folder / "golden.json").read_text())[0]["features"]
    with gateway_client(settings) as http:
        (tmp_path / "openapi.json").write_text(json.dumps(of_what_is_there(http, row)))
    command = f"{sys.executable} -m schemathesis.cli run openapi.json {OPTIONS} {SAME}".split()
    at = ["--url", f"http://127.0.0.1:{settings.gateway_port}"]
    done = subprocess.run([*command, *at], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 selected / 14 total" in done.stdout
