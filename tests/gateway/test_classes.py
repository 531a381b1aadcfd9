"""Releases of named classes behind the real gateway: the class, its score and every score; labels by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.runtime import stack
from services.serving.package import package
from services.serving.smoke import smoke
from services.store.costs import summarize_costs
from services.store.database import Store
from tasks.core.places import Places
from tasks.core.settings import ROOT, Settings
from tasks.core.sockets import http_client
from tasks.evaluate.config import Evaluate
from tasks.evaluate.results import EvaluationContext
from tasks.evaluate.tabular.gates import evaluate_gates
from tasks.release.results import SealContext
from tasks.release.seal import seal
from tasks.release.tabular import tabular_parts
from tasks.train.config import Target
from tasks.train.tabular.fit import train
from tests.gateway.stack import gateway_client, serve
from tests.release.small import LINEAGE
from tests.train.frames import BY_HASH, CLASSES, boosting, frame_of, origin_of, wines

pytestmark = pytest.mark.xdist_group("gateway")

GATES = {"bounds": [{"metric": "accuracy", "at_least": 0.8}], "champion_gate": {"loss": "log_loss"}}
REST = Target(column="target", task="classification", positive="barolo")


@pytest.mark.parametrize(
    ("case", "names", "target"),
    [("wine", ("barolo", "grignolino", "barbera"), CLASSES), ("barolo", ("barolo", "rest", "rest"), REST)],
)
def test_an_answer_names_its_class_and_scores_all(
    case: str, names: tuple[str, ...], target: Target, settings: Settings, state: Path, store: Store, tmp_path: Path
) -> None:
    """As the model predicts offline, which the smoke test checks over HTTP; the schema lists the classes."""
    candidate = train(origin_of(case, state), frame_of(wines(names), tmp_path), target, boosting((), BY_HASH))
    verdict = evaluate_gates(
        candidate,
        target,
        boosting((), BY_HASH),
        config=Evaluate.model_validate(GATES),
        context=EvaluationContext(Places.in_folder(state)),
    )
    folder = seal(
        candidate, verdict, tabular_parts(candidate, verdict, target), SealContext(lineage=LINEAGE, state=state)
    )
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    address = stack.release_address(settings, serve(settings, folder))
    assert address
    assert smoke(folder, address)["examples"] == 24
    with http_client(address) as release:
        document = release.get("/docs.json").json()
    properties = document["components"]["schemas"]["Prediction"]["properties"]
    assert properties["prediction"]["enum"] == list(verdict.classes)
    assert "scores" in properties

    golden = json.loads((folder / "golden.json").read_text())
    rows = [{"example_id": one["example_id"], **one["features"]} for one in golden]
    with gateway_client(settings) as http:
        response = http.post(f"/v1/predict/{case}", json={"rows": rows}).json()
        for answer, one in zip(response["predictions"], golden, strict=True):
            every = one["prediction"] if len(verdict.classes) > 2 else [1 - one["prediction"], one["prediction"]]
            assert answer["scores"] == dict(zip(verdict.classes, every, strict=True))
            assert answer["score"] == max(every) == answer["scores"][answer["prediction"]]
        first, second, *_ = response["predictions"]
        for answer, label in ((first, first["prediction"]), (second, "vinegar")):
            word = {"label": label, "example_id": answer["example_id"]}
            assert http.post(f"/v1/feedback/{response['request_id']}", json=word).status_code == 201
    (row,) = [row for row in summarize_costs(store, "case") if row["case"] == case]
    assert (row["judged"], row["accepted"]) == (2, 1)
