"""The language case that is here, with the real small model, through the whole chain in its smoke profile."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT
from tests.end_to_end.terminal import Terminal, World
from tests.end_to_end.test_language import METRICS

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("assistant")]


def test_the_real_small_model_from_templates_to_a_champion(tmp_path, terminal: Terminal):
    """Pairs from real flights, LoRA, answers beside the base, parity, a Bento that answers; all metrics are told."""
    world = World(tmp_path, ROOT / "configs")
    done = terminal.start(world, "run assistant --profile smoke").wait(1800)
    assert done.code == 0, done.output
    shown = json.loads(terminal.run(world, "show assistant --json").output)
    assert shown["verdict"]["decision"] == "promote"
    metrics = shown["metrics"]
    for scores in (metrics, *(shown["baselines"][name] for name in ("zero_shot", "few_shot"))):
        assert METRICS - set(scores) <= {"hallucination_rate"}, "of answers that state nothing"
    assert world.champion("assistant") == shown["release"]["digest"]
