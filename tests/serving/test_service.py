from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.settings import ROOT
from tasks.core.sockets import http_client
from tasks.release.seal import read_manifest

pytestmark = pytest.mark.xdist_group("bento")


@pytest.fixture(scope="module")
def client(
    state: Path, bento: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    log = tmp_path_factory.mktemp("service") / "serve.log"
    with (
        serve_bento(bento_folder(state / "bentoml", bento), environment, log) as address,
        http_client(address) as client,
    ):
        yield client
        assert "input_value" not in log.read_text(), "what clients send is not logged"


@pytest.fixture(scope="module")
def golden(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "golden.json").read_text())


@pytest.fixture
def row(golden: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(golden[0]["features"])


def test_answers_are_typed_and_say_who_answered(
    client: httpx.Client, folder: Path, golden: list[dict[str, Any]]
) -> None:
    """Each row's own answer, in order, with its example_id if it had one; and the release's digest."""
    digest = read_manifest(folder)["digest"]
    rows = [{"example_id": golden[0]["example_id"], **golden[0]["features"]}, golden[1]["features"]]
    answer = client.post("/predict", json={"rows": rows})
    assert answer.json() == {
        "release": digest,
        "predictions": [
            {"example_id": name, "prediction": int(score >= 0.5), "score": score}
            for name, score in ((golden[0]["example_id"], golden[0]["prediction"]), (None, golden[1]["prediction"]))
        ],
    }
    about = {"release": digest, "case": "small", "as_of": "2013-04-01T00:00:00+00:00"}
    assert client.get("/release").json() == client.post("/release").json() == about


def test_many_rows_answer_as_one(client: httpx.Client, golden: list[dict[str, Any]]) -> None:
    """A batch, scored aside, gives what single rows give, to the last digit."""
    rows = [example["features"] for example in golden] * 30
    predictions = client.post("/predict", json={"rows": rows}).json()["predictions"]
    assert [p["score"] for p in predictions] == [example["prediction"] for example in golden] * 30


def test_gaps_of_every_form_are_missing_values(client: httpx.Client, row: dict[str, Any]) -> None:
    """Kind of row 40: a key left out, null, an empty field; where the pipeline takes a gap that training had not."""
    without = {name: value for name, value in row.items() if name != "distance"}
    gaps = [without, {**row, "distance": None}, {**row, "distance": ""}, {**row, "distance": " "}]
    answers = [client.post("/predict", json={"rows": [gap]}).json() for gap in gaps]
    assert len({answer["predictions"][0]["score"] for answer in answers}) == 1
    assert [answer.get("missing_columns") for answer in answers] == [["distance"], None, None, None]
    assert client.post("/predict", json={"rows": [{**row, "tail_age": None, "wind": None}]}).is_success


def test_a_row_pasted_from_the_file_is_answered(client: httpx.Client, row: dict[str, Any]) -> None:
    """Kind of row 40: columns of the source that are no features change nothing, and are named."""
    pasted = {**row, "origin": "EWR", "late": 1, "event_timestamp": "2013-01-01"}
    answer = client.post("/predict", json={"rows": [row, pasted]}).json()
    assert answer["ignored_columns"] == ["event_timestamp", "late"]
    assert answer["predictions"][0] == answer["predictions"][1]


def test_unseen_categories_are_named_and_counted(client: httpx.Client, row: dict[str, Any]) -> None:
    """Kind of row 39: blanks are no other category; one that training had not is named, and counted."""
    plain = client.post("/predict", json={"rows": [{**row, "carrier": "UA"}]}).json()
    assert client.post("/predict", json={"rows": [{**row, "carrier": " UA "}]}).json() == plain
    assert "unseen_categories" not in plain
    answer = client.post("/predict", json={"rows": [{**row, "carrier": name} for name in ("ZZ", "UA", "YY", "ZZ")]})
    assert answer.json()["unseen_categories"] == {"carrier": ["YY", "ZZ"]}
    assert 'driftline_unseen_categories_total{column="carrier"} 3.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"distance": "far"}, ["rows", 0, "distance"], "valid number"),
        ({"distance": "12"}, ["rows", 0, "distance"], "valid number"),
        ({"distance": True}, ["rows", 0, "distance"], "valid number"),
        ({"carrier": 7}, ["rows", 0, "carrier"], "valid string"),
        ({"carrier": "x" * 2000}, ["rows", 0, "carrier"], "1000 characters"),
        ({"typo": 1}, ["rows", 0, "typo"], "no such column"),
        ({"Distance": 1}, ["rows", 0, "Distance"], "did you mean distance?"),
        ({"f0": 1}, ["rows", 0, "f0"], "not permitted"),
        ({"carrier": ..., "distance": ..., "tail_age": ...}, ["rows", 0], "no feature, such as carrier"),
        ({"wind": ...}, ["rows", 0, "wind"], "no online store"),
        ({"carrier_late": ...}, ["rows", 0, "carrier_late"], "no online store"),
    ],
)
def test_a_wrong_row_is_refused_by_name(
    client: httpx.Client, row: dict[str, Any], change: dict[str, Any], place: list[Any], says: str
) -> None:
    """4xx naming the row, the column and what is wrong, before anything is predicted; no value is sent back."""
    wrong = {name: value for name, value in {**row, **change}.items() if value is not ...}
    answer = client.post("/predict", json={"rows": [wrong]})
    assert answer.status_code == 400
    problem = answer.json()["detail"][0]
    assert problem["loc"] == place
    assert says in problem["msg"]
    assert "input" not in problem


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{nope",
        b"[]",
        b'{"rows": []}',
        b'{"rows": {}}',
        b'{"rows": [1]}',
        b'{"rows": [null]}',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"rows": [{"distance": 1e999}]}',
        b'{"rows": [{"distance": NaN}]}',
        b'{"rows": [{"distance": 1' + b"0" * 500 + b"}]}",
        b'{"rows": [{"carrier": "\\ud800"}]}',
        b'{"rows": [' + b",".join([b"{}"] * 10_001) + b"]}",
    ],
    ids=lambda body: f"{body[:40]!r} of {len(body)}",
)
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_whatever_is_sent_is_refused_never_500(client: httpx.Client, body: bytes, kind: str) -> None:
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert len(answer.content) < 10_000


def test_pickles_are_refused(client: httpx.Client) -> None:
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    assert 400 <= client.post("/predict", content=b"\x80\x04.", headers=headers).status_code < 500


def test_the_openapi_document_shows_types_and_examples(client: httpx.Client, golden: list[dict[str, Any]]) -> None:
    """Column names, types, what is required, and an example that can be sent as it is."""
    document = client.get("/docs.json").json()
    schemas = document["components"]["schemas"]
    row = schemas["Row"]
    assert row["properties"]["distance"]["anyOf"][0]["type"] == "number"
    assert row["properties"]["carrier"]["anyOf"][0]["type"] == "string"
    assert {"type": "null"} in row["properties"]["tail_age"]["anyOf"]
    assert "required" not in row, "the pipeline takes a gap in each"
    assert row["properties"]["late"]["description"].startswith("Ignored")
    assert row["additionalProperties"] is False
    assert "carrier_day by carrier" in row["properties"]["carrier_late"]["description"]
    answer = client.post("/predict", json={"rows": [row["example"]]})
    assert answer.json()["predictions"][0]["score"] == golden[0]["prediction"]
    assert schemas["Prediction"]["properties"]["score"]["description"] == "Probability that late is 1."


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/livez").is_success
    assert client.get("/readyz").is_success
    assert "bentoml_service_request_total" in client.get("/metrics").text


def test_the_service_imports_little(state: Path, bento: str) -> None:
    """A server pays for scikit-learn, not for Feast, torch, MLflow, Prefect or pandas."""
    code = """
import json, sys
sys.path.insert(0, ".")
import service
predictor = service.Predictor.inner()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    source = bento_folder(state / "bentoml", bento) / "src"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "sklearn" in loaded
    assert not loaded & {"feast", "torch", "mlflow", "prefect", "duckdb", "evidently", "great_expectations"}
    assert str(ROOT / "services") not in done.stdout
