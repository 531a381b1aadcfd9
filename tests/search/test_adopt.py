"""Adopting a trial changes the keys that a search owns, and no other line."""

from __future__ import annotations

import pytest

from tasks.core.errors import CaseError
from tasks.core.yaml_file import load_yaml
from tasks.search.adopt import changed_text

OWNED = {"train": ("family", "parameters", "encoders", "target_transform")}
TEXT = """\
# A case.
target: {column: late, task: classification}

train:
  family: sklearn.ensemble.RandomForestClassifier
  # why so many
  parameters:
    n_estimators: 120  # trees
  split: {by: hash, share: 0.2}  # by id
  seed: 0

# what is required
evaluate:
  bounds: [{metric: auc, at_least: 0.7}]
"""
ENCODER = {"columns": ["sex"], "family": "sklearn.preprocessing.OneHotEncoder"}
CHANGE = {
    "train": {"family": "sklearn.linear_model.LogisticRegression", "parameters": {"C": 0.5}, "encoders": [ENCODER]}
}


def test_own_keys_are_replaced_and_other_lines_stay():
    """Comments of other keys, their order and their form are those of before."""
    changed = changed_text(TEXT, CHANGE, OWNED)
    assert load_yaml(changed)["train"] == {**CHANGE["train"], "split": {"by": "hash", "share": 0.2}, "seed": 0}
    for line in ("# A case.", "  split: {by: hash, share: 0.2}  # by id", "# what is required"):
        assert line in changed.splitlines()
    assert "why so many" not in changed
    assert changed.index("# what is required") < changed.index("evaluate:")


def test_adopting_twice_changes_nothing_more():
    """The second time the text is the same."""
    once = changed_text(TEXT, CHANGE, OWNED)
    assert changed_text(once, CHANGE, OWNED) == once


def test_a_key_that_the_change_lacks_is_removed():
    """The transformed target of the case before is no part of the new one."""
    text = TEXT.replace("  seed: 0", "  target_transform: log1p\n  seed: 0")
    assert "target_transform" not in changed_text(text, CHANGE, OWNED)


def test_a_section_on_one_line_is_refused():
    """Rather than written wrongly."""
    with pytest.raises(CaseError, match="line by line"):
        changed_text("train: {family: x, split: {by: hash}}\n", CHANGE, OWNED)


def test_a_section_may_go():
    """What an arm does not need is removed, with its comments alone."""
    changed = changed_text(TEXT, {"train": None}, {})
    assert load_yaml(changed) == {name: each for name, each in load_yaml(TEXT).items() if name != "train"}
    assert "# what is required" in changed


def test_the_name_of_a_file_is_replaced():
    """A prompt of a file becomes a section with what the file and the trial have."""
    change = {"prompt": {"system": "Be brief.", "few_shot": 3}}
    changed = changed_text("# why\nprompt: prompts/guide.yaml  # a file\nserve: {slots: 2}\n", change, {})
    assert load_yaml(changed) == {"prompt": change["prompt"], "serve": {"slots": 2}}
    assert "# why" in changed
