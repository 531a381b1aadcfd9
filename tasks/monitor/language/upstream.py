"""Drift of a model behind an address: golden questions are asked again, and the answers compared with the release's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.files import write_text
from tasks.core.progress import progress_step
from tasks.language.engine import Completion
from tasks.language.remote_engine import connect_upstream
from tasks.language.upstream import UPSTREAM, Upstream
from tasks.language.upstream_facts import facts_of
from tasks.monitor.results import ChangedAnswer, UpstreamDrift
from tasks.monitor.signal import Window
from tasks.release.seal import GOLDEN, read_manifest

ANSWERS = "upstream.json"  # beside the signal: what was asked, and all changed answers


def measure_upstream(release: Path, window: Window, state: Path) -> UpstreamDrift:
    """Ask the golden questions of a release again, and compare answers, fingerprint and facts of the server.

    Raises: Unavailable when the server does not answer.
    """
    upstream = Upstream.read(release / UPSTREAM)
    serving = read_manifest(release)["sealed"]["serving"]
    golden: list[dict[str, Any]] = json.loads((release / GOLDEN).read_text(encoding="utf-8"))
    with progress_step("ask golden questions again"), connect_upstream(upstream, slots=serving["slots"]) as engine:
        conversations = [each["messages"] for each in golden]
        answers = engine.chat_batch(conversations, max_tokens=serving["answer_tokens"])
        facts, fingerprints = facts_of(engine), tuple(sorted(engine.fingerprints))
    drift = compare_answers(golden, answers)
    seen = set(upstream.fingerprints)
    unknown = tuple(each for each in fingerprints if seen and each not in seen)
    before = upstream.facts
    changed = tuple(sorted(name for name in facts.keys() | before.keys() if facts.get(name) != before.get(name)))
    drift = drift.model_copy(
        update={"model": upstream.model, "fingerprints": unknown, "facts": changed if facts and before else ()}
    )
    write_text(window.folder(state) / ANSWERS, drift.model_dump_json(indent=1) + "\n")
    return drift


def compare_answers(golden: Sequence[Mapping[str, Any]], answers: Sequence[Completion]) -> UpstreamDrift:
    """The answers that changed, and how likely so many would be if only the server's own noise changed them.

    The noise is known from the release's evaluation, which asked each question twice. Source of the test: Fisher's
    exact test of both shares.
    """
    from scipy.stats import fisher_exact

    changed = [
        ChangedAnswer(question=each["messages"][-1]["content"], then=each["of_model"][0], now=answer.text)
        for each, answer in zip(golden, answers, strict=True)
        if answer.text.strip() not in {text.strip() for text in each["of_model"]}
    ]
    noise = sum(first.strip() != again.strip() for first, again in (each["of_model"] for each in golden))
    table = [[len(changed), len(golden) - len(changed)], [noise, len(golden) - noise]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue) if golden else 1.0
    return UpstreamDrift(questions=len(golden), changed=tuple(changed), noise=noise, p_value=p_value)
