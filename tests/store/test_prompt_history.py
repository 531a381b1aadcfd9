"""Prompts in rollouts: each answer names the prompt of its release, and the trail says who moved which alias."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from services.gateway.request_handler import response_headers
from services.rollout.routing import CANARY, routes_of
from services.rollout.shares import ShareSpec, promote, rollback, set_share, upsert_release
from services.store.database import Store, endpoints, releases, shares
from services.store.prompt_history import prompt_history
from services.store.task import record_candidate_prompt
from tasks.core.actor import acting, person
from tasks.core.settings import Settings
from tasks.language.prompts import PROMPT, Prompt, sealed_text
from tasks.release.registry import read_release
from tasks.release.seal import release_folder
from tests.gateway.in_process import call_of

OLD, NEW = Prompt(system="Be brief."), Prompt(name="guide", messages=({"role": "system", "content": "Be kind."},))
DIGESTS = {"a" * 64: OLD, "b" * 64: NEW}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """Two releases of a case, which differ in their prompt; a process serves each."""
    with closing(Store(settings)) as store:
        for digest, prompt in DIGESTS.items():
            sealed: dict[str, Any] = {"case": "museum", "kind": "llm", "as_of": "2024-06-01T00:00:00+00:00"}
            sealed |= {"prompt": {"name": prompt.name, "digest": prompt.digest}}
            sealed |= {"verdict": {"digest": digest, "decision": "promote"}}
            manifest = {"digest": digest, "sealed": sealed, "recorded": {"run_id": "none"}}
            folder = release_folder(settings.state, "museum", digest)
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(json.dumps(manifest))
            (folder / PROMPT).write_text(sealed_text(prompt))
            upsert_release(store, manifest)
            with store.changing() as connection:
                connection.execute(endpoints.insert().values(digest=digest, address="http://127.0.0.1:9"))
            with acting(person("me")):
                for _ in range(2):  # the second one is a restarted run
                    record_candidate_prompt(read_release(folder, "1"), settings)
        yield store


def served(store: Store) -> dict[str, str]:
    """The prompt that an answer names, by the role of its release."""
    with store.reading() as connection:
        rows = [connection.execute(select(table)).mappings().all() for table in (releases, endpoints, shares)]
    rollout = routes_of(*rows).rollouts["museum"]
    with store.reading() as connection:
        roles = {row["digest"]: row["role"] for row in connection.execute(select(shares)).mappings()}
    routes = routes_of(*rows).by_digest
    assert rollout.champion.route.digest in roles
    return {
        role: response_headers(call_of(route=routes[digest]))["x-driftline-prompt"] for digest, role in roles.items()
    }


def test_a_canary_and_a_rollback_name_their_prompts(store: Store) -> None:
    """A prompt is rolled out, and back, as any release."""
    promote(store, "museum", "a" * 64, "released")
    set_share(store, "museum", ShareSpec("b" * 64, CANARY, 10), "by its plan")
    assert served(store) == {"champion": OLD.label, CANARY: NEW.label}
    promote(store, "museum", "b" * 64, "its plan is complete")
    assert served(store) == {"champion": NEW.label}
    rollback(store, "museum", None, "visitors complained")
    assert served(store) == {"champion": OLD.label}


def test_the_history_is_that_of_both_aliases(store: Store, settings: Settings) -> None:
    """Newest first, with the verdict and the reason; a share that is no promotion moves nothing."""
    promote(store, "museum", "a" * 64, "released")
    set_share(store, "museum", ShareSpec("b" * 64, CANARY, 10), "by its plan")
    promote(store, "museum", "b" * 64, "its plan is complete")
    rollback(store, "museum", None, "visitors complained")
    moves = prompt_history(store, settings.state, "museum")
    assert [(move.alias, move.prompt) for move in moves] == [
        ("production", OLD.label),
        ("production", NEW.label),
        ("production", OLD.label),
        ("candidate", NEW.label),
        ("candidate", OLD.label),
    ]
    assert moves[0].evidence == f"verdict {'a' * 12}: promote; visitors complained"
    assert moves[3].actor == "me"
    assert moves[0].actor not in ("", "me")
    assert prompt_history(store, settings.state, "other") == []


def test_a_release_whose_folder_is_gone_stays_in_the_history(store: Store, settings: Settings) -> None:
    """Its prompt is unknown then."""
    promote(store, "museum", "a" * 64, "released")
    (release_folder(settings.state, "museum", "a" * 64) / "manifest.json").unlink()
    move = prompt_history(store, settings.state, "museum")[0]
    assert (move.prompt, move.evidence) == ("?", "verdict unknown; released")
