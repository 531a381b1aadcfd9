"""Promise: a model that changes behind its unchanged name raises an alert with the answers that changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import Unavailable
from tasks.language.engine import Completion, start_engine
from tasks.language.messages import chat_message
from tasks.language.upstream import UPSTREAM, Upstream
from tasks.monitor.decide import decide_on_upstream
from tasks.monitor.language.upstream import ANSWERS, compare_answers, measure_upstream
from tasks.monitor.page import write_upstream_page
from tasks.monitor.results import Decision, UpstreamDrift
from tasks.monitor.signal import Window
from tests.language_case import smollm_base, tiny_opened

RELEASE = "ab" * 32
START, END = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)
WINDOW = Window("cities", RELEASE, END, START, END)
QUESTIONS = [f"Name a city that begins with {letter}." for letter in "ABCDEFGH"]
TOKENS = 6


def golden_of(texts: list[str], again: list[str]) -> list[dict[str, Any]]:
    return [
        {"example_id": str(n), "messages": [chat_message("user", question)], "answer": "", "of_model": [text, more]}
        for n, (question, text, more) in enumerate(zip(QUESTIONS, texts, again, strict=True))
    ]


def answers(texts: list[str]) -> list[Completion]:
    return [Completion(text, 1, 0, 1, 0.1, "stop") for text in texts]


def test_noise_of_the_server_is_no_change():
    """What differed between two times at the release may differ again; either of its answers is no change."""
    then, again = [*"aaaaaaaa"], [*"aaaabbbb"]
    assert compare_answers(golden_of(then, again), answers(again)).changed == ()
    noisy = compare_answers(golden_of(then, again), answers([*"aaaacccc"]))
    assert (len(noisy.changed), noisy.noise) == (4, 4)
    assert noisy.p_value > 0.5
    still = compare_answers(golden_of(then, then), answers([*"aaaacccc"]))
    assert (len(still.changed), still.noise) == (4, 0)
    assert still.p_value == pytest.approx(0.0385, abs=0.001)


def decision_on(drift: UpstreamDrift, state: Path) -> Decision:
    return decide_on_upstream(drift, WINDOW, WINDOW.folder(state), 0.05)


def release_of(folder: Path, upstream: Upstream, texts: list[str]) -> Path:
    """What monitoring reads of a release."""
    folder.mkdir()
    sealed = {"serving": {"slots": 2, "answer_tokens": TOKENS}}
    (folder / "manifest.json").write_text(json.dumps({"digest": RELEASE, "sealed": sealed}))
    (folder / "golden.json").write_text(json.dumps(golden_of(texts, texts)))
    upstream.write(folder / UPSTREAM)
    return folder


def test_another_model_behind_the_name_is_an_alert(tmp_path, monkeypatch):
    """Two models of one name, behind one address: nothing while it is the same, then all its answers side by side."""
    upstream = Upstream(source="openai://$CITIES_URL#cities", address="", model="cities", key="CITIES_KEY")
    conversations = [[chat_message("user", question)] for question in QUESTIONS]
    with start_engine(smollm_base().served, threads=1, slots=2, context=128, name="cities") as engine:
        monkeypatch.setenv("CITIES_URL", f"{engine.address}/v1")
        monkeypatch.setenv("CITIES_KEY", engine.key)
        texts = [each.text for each in engine.chat_batch(conversations, max_tokens=TOKENS)]
        release = release_of(tmp_path / "release", upstream, texts)
        same = measure_upstream(release, WINDOW, tmp_path)
    assert decision_on(same, tmp_path).action == "ignore"
    with pytest.raises(Unavailable, match="does not answer"):
        measure_upstream(release, WINDOW, tmp_path)
    with start_engine(tiny_opened(tmp_path).served, threads=1, slots=2, context=128, name="cities") as engine:
        monkeypatch.setenv("CITIES_URL", f"{engine.address}/v1")
        monkeypatch.setenv("CITIES_KEY", engine.key)
        other = measure_upstream(release, WINDOW, tmp_path)
    decision = decision_on(other, tmp_path)
    assert decision.action == "alert"
    (reason,) = [each for each in decision.reasons if "golden questions" in each]
    assert f"answers {len(other.changed)} of 8 golden questions otherwise" in reason
    assert f"{QUESTIONS[0]!r}: {texts[0]!r}, now" in " ".join(reason.split())
    page = write_upstream_page(other, decision).read_text()
    assert all(question in page for question in QUESTIONS)
    stored = json.loads((WINDOW.folder(tmp_path) / ANSWERS).read_text())
    assert len(stored["changed"]) == len(other.changed) > 5


def test_another_fingerprint_is_an_alert(tmp_path, monkeypatch):
    """Even while all answers are the same; one of those seen at the release is none."""
    with start_engine(tiny_opened(tmp_path).served, threads=1, slots=1, context=128, name="cities") as engine:
        monkeypatch.setenv("CITIES_KEY", engine.key)
        address = f"{engine.address}/v1"
        upstream = Upstream(source=f"openai+{address}#cities", address=address, model="cities", key="CITIES_KEY")
        cases: dict[tuple[str, ...], str] = {("fp_old",): "alert", ("b0-unknown", "fp"): "ignore", (): "ignore"}
        for number, (fingerprints, action) in enumerate(cases.items()):
            described = upstream.model_copy(update={"fingerprints": fingerprints})
            texts = [engine.chat([chat_message("user", each)], max_tokens=TOKENS).text for each in QUESTIONS]
            release = release_of(tmp_path / str(number), described, texts)
            drift = measure_upstream(release, WINDOW, tmp_path)
            assert decision_on(drift, tmp_path).action == action
