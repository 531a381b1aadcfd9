"""Prompts in MLflow's registry: one version a digest, and aliases that only releases move."""

from __future__ import annotations

from pathlib import Path

from tasks.core.mlflow import Tracking, mlflow_client
from tasks.language.prompts import PROMPT, Decoding, Prompt, PromptMessage, sealed_text
from tasks.release.prompt_registry import (
    move_to_production,
    register_prompt,
    registered_prompts,
    registry_name,
    unregister_prompts,
)

PLAIN = Prompt(system="Be brief.")
MESSAGES = Prompt(
    name="guide",
    messages=(PromptMessage(role="user", content="Question: {{ message }}"),),
    parameters=Decoding(temperature=0.5, stop=("\n",)),
)


def released(folder: Path, prompt: Prompt) -> Path:
    """A release's folder with its prompt."""
    folder.mkdir()
    (folder / PROMPT).write_text(sealed_text(prompt), encoding="utf-8")
    return folder


def test_aliases_follow_the_releases(tmp_path: Path) -> None:
    """A verdict makes a candidate, a promotion the one in production; equal prompts are one version."""
    tracking = Tracking.in_folder(tmp_path)
    client, name = mlflow_client(tracking), registry_name("museum")
    one, two = released(tmp_path / "one", PLAIN), released(tmp_path / "two", MESSAGES)
    three = released(tmp_path / "three", MESSAGES.model_copy(update={"notes": "the same"}))

    def aliases() -> dict[str, tuple[str, ...]]:
        return {each.label: each.aliases for each in registered_prompts(tracking, "museum")}

    assert aliases() == {}
    register_prompt(client, "museum", one, "a" * 64)
    assert aliases() == {PLAIN.label: ("candidate",)}
    move_to_production(client, "museum", one, "a" * 64)
    register_prompt(client, "museum", two, "b" * 64)
    assert aliases() == {MESSAGES.label: ("candidate",), PLAIN.label: ("production",)}
    move_to_production(client, "museum", two, "b" * 64)
    register_prompt(client, "museum", three, "c" * 64)
    assert aliases() == {MESSAGES.label: ("production",), PLAIN.label: ()}
    move_to_production(client, "museum", one, "a" * 64)
    assert aliases() == {MESSAGES.label: (), PLAIN.label: ("production",)}
    version = client.get_prompt_version(name, 2)
    assert version.template == [{"role": "user", "content": "Question: {{ message }}"}]
    assert version.tags["digest"] == MESSAGES.digest
    unregister_prompts(client, "museum")
    assert aliases() == {}


def test_a_release_of_an_earlier_version_is_registered_with_its_promotion(tmp_path: Path) -> None:
    """A rollback to it finds no version of its prompt."""
    tracking = Tracking.in_folder(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "system.txt").write_text("Be brief.", encoding="utf-8")
    move_to_production(mlflow_client(tracking), "museum", tmp_path / "old", "a" * 64)
    (version,) = registered_prompts(tracking, "museum")
    assert (version.label, version.aliases, version.release) == (PLAIN.label, ("production",), "a" * 64)
