"""Promise: a model behind an address becomes a champion as any other, and what can't be pinned is stated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.serving.package import bento_folder
from services.serving.process import serve_bento
from tasks.core.mlflow import Tracking
from tasks.core.settings import environment, settings
from tasks.core.sockets import http_client
from tasks.language.engine import Engine, start_engine
from tasks.release.registry import load_champion
from tests.end_to_end.small import change_case
from tests.end_to_end.terminal import World
from tests.language.upstreams import misbehaving, whole
from tests.language_case import smollm_base, tiny_opened
from tests.waiting import wait_for

CASE = """
kind: llm
description: What a visitor asks a museum.
as_of: 2024-06-01
model: {source: "openai://$MUSEUM_URL#museum", key: MUSEUM_KEY, context: 256}
prompt: {system: "Answer in one sentence."}
answer: {format: text, abstain: "I don't know."}
data: {sources: {questions: {uri: file://questions.jsonl, key: [prompt]}}}
pairs: {sources: [questions]}
serve: {answer_tokens: 8, slots: 2}
price: {tokens_in: 0.5, tokens_out: 2}
evaluate:
  bounds: [{metric: required_facts_recall, at_least: 0}]
  champion_gate: {loss: missing_facts, margin: 0.1, min_rows: 30}
"""
ROOMS = ["masks", "coins", "maps", "clocks", "boats", "stars", "birds", "robes", "drums", "tiles", "bells", "kites"]


@contextmanager
def server(world: World, *, tiny: bool = False) -> Iterator[Engine]:
    """llama.cpp's server, whose address and key the commands of this world get by their variables."""
    base = tiny_opened(world.folder) if tiny else smollm_base()
    with start_engine(base.served, threads=1, slots=2, context=256, name="museum") as engine:
        world.variables |= {"MUSEUM_URL": f"{engine.address}/v1", "MUSEUM_KEY": engine.key}
        yield engine


@pytest.fixture(scope="module")
def museum(tmp_path_factory, terminal) -> World:
    """A world in which the case has a champion; its server is gone since."""
    folder = tmp_path_factory.mktemp("upstream")
    world = World(folder, folder / "cases")
    case = world.cases / "museum"
    case.mkdir(parents=True)
    (case / "case.yaml").write_text(CASE)
    questions = [
        {"prompt": f"{ask} the {room}?", "completion": f"In room {number}.", "required_facts": [f"room {number}"]}
        for number, room in enumerate(ROOMS)
        for ask in ("Where do I find", "Which stairs lead up to", "How long does it take to see", "Who collected")
    ]
    (case / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    with server(world):
        done = terminal.run(world, "run museum")
    assert done.code == 0, done.output
    return world


def test_the_release_states_what_it_is_and_what_is_not_pinned(museum, terminal):
    """Address, model, facts and price are sealed; the key and the weights are not there."""
    shown = json.loads(terminal.run(museum, "show museum --json").output)
    base = shown["release"]["base"]
    assert base["upstream"]["model"] == "museum"
    assert base["upstream"]["address"] == museum.variables["MUSEUM_URL"]
    assert base["upstream"]["facts"]["meta"]["n_params"] > 0
    assert base["not_pinned"].startswith("weights")
    assert shown["release"]["price"] == {"tokens_in": 0.5, "tokens_cached": 0.0, "tokens_out": 2.0, "machine_hour": 0.0}
    assert "not pinned" in terminal.run(museum, "show museum").output
    written = [path for path in museum.state.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert not [path for path in written if museum.variables["MUSEUM_KEY"].encode() in path.read_bytes()]


def test_what_the_evaluation_spent_is_recorded(museum, terminal):
    """Its tokens at the case's prices; asked again, all answers come from the cache and cost nothing."""
    (row,) = json.loads(terminal.run(museum, "costs --by case --json").output)
    most = (row["tokens_in"] * 0.5 + row["tokens_out"] * 2) / 1e6  # cached tokens are free
    assert row["tokens_out"] * 2 / 1e6 < row["evaluation"] == row["spent"] <= most
    assert row["calls"] == 0
    with server(museum):  # at another address, which may answer otherwise
        spent = []
        for _ in range(2):
            terminal.run(museum, "run museum")
            (again,) = json.loads(terminal.run(museum, "costs --by case --json").output)
            spent.append(again["spent"])
    assert row["spent"] < spent[0] == spent[1]


def test_a_server_that_is_gone_promotes_nothing(museum, terminal):
    """Silence and nonsense: an error that names the address, and the champion stays."""
    champion = museum.champion("museum")
    done = terminal.run(museum, "run museum")
    assert done.code == 5
    assert museum.variables["MUSEUM_URL"] in done.output.replace("\n", "")
    before = museum.variables["MUSEUM_URL"]
    with misbehaving(whole(b"<html>It works!</html>")) as lying:
        museum.variables["MUSEUM_URL"] = lying.address
        done = terminal.run(museum, "run museum")
    museum.variables["MUSEUM_URL"] = before
    assert done.code == 5
    assert "no chat completion" in done.output
    assert museum.champion("museum") == champion


def test_monitoring_sees_another_model_behind_the_name(museum, terminal):
    """The alert names the questions, and both answers; with the same model there is none."""
    with server(museum):
        done = terminal.run(museum, "monitor museum")
        assert done.code == 0, done.output
        assert "decision: ignore" in done.output
    with server(museum, tiny=True):
        done = terminal.run(museum, "monitor museum")
    assert done.code == 0, done.output
    assert "decision: alert" in done.output
    assert "golden questions otherwise than at the release" in " ".join(done.output.split())


def test_the_service_comes_back_with_its_server(museum, monkeypatch):
    """The packaged release holds no weights; without its server it is not ready, and then it is."""
    release = load_champion(Tracking.in_folder(museum.state), museum.state, "museum")
    assert release
    bento = bento_folder(museum.state / "bentoml", release.bento)
    assert not list(bento.rglob("*.gguf"))
    body = {"messages": [{"role": "user", "content": "Where do I find the masks?"}]}
    with server(museum) as engine:
        variables = {**environment(settings()), **museum.variables}
        with (
            serve_bento(bento, variables, museum.folder / "served.log") as address,
            http_client(address, timeout=60) as client,
        ):
            answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            assert answer["model"] == f"museum:{release.digest[:12]}"
            engine.kill()
            assert wait_for(lambda: client.get("/readyz").status_code == 503, 40)
            gone = client.post("/v1/chat/completions", json=body)
            assert (gone.status_code, gone.headers["retry-after"]) == (503, "5")


def test_training_needs_weights(museum, terminal, tmp_path):
    """A case that tunes a model behind an address is an error before anything runs."""
    world = World(museum.folder, tmp_path / "cases")
    folder = world.cases / "museum"
    folder.mkdir(parents=True)
    (folder / "case.yaml").write_text(CASE)
    (folder / "questions.jsonl").symlink_to(museum.cases / "museum" / "questions.jsonl")
    change_case(folder, train={"stages": {"sft": {}}})
    done = terminal.run(world, "validate museum")
    assert done.code == 2
    assert "train needs the model's weights" in done.output
