"""Reading cases: every wrong key and value is told, at once, before anything starts."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flows.case import case_names, load_case
from tasks.core.errors import CaseError
from tasks.features.config import RESERVED

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


@pytest.fixture
def broken(tmp_path):
    """Make a copy of a real case with some values changed; give a function that reads it."""

    def make(**changes):
        values = yaml.safe_load((CONFIGS / "credit" / "case.yaml").read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = values
            for parent in parents:
                place = place[parent]
            place[last] = value
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "case.yaml").write_text(yaml.safe_dump(values))
        return load_case("mine", tmp_path)

    return make


@pytest.mark.parametrize("name", case_names(CONFIGS))
@pytest.mark.parametrize("profile", [None, "smoke"])
def test_every_case_and_its_smoke_profile_read(name, profile):
    """Each case in the repository is valid, in full and in smoke."""
    assert load_case(name, CONFIGS, profile).name == name


def test_an_unknown_case_names_the_nearest():
    """A mistyped name is answered with the one that was meant."""
    with pytest.raises(CaseError, match="Did you mean credit"):
        load_case("credt", CONFIGS)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(CaseError, match="smoke"):
        load_case("credit", CONFIGS, "smok")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train__famly": "x"}, "train.famly: unknown key; did you mean family"),
        ({"train__seed": "one"}, "train.seed: .*integer.*found 'one'"),
        ({"evaluate__champion_gate__confidence": 2}, "evaluate.champion_gate.confidence: .*less than 1.*found 2"),
        ({"train__family": "os.system"}, "train.family: .*found 'os.system'"),
        ({"train__split": {"by": "time"}}, "holdout"),
        ({"kind": "vision"}, "allowed: tabular, llm"),
        ({"features__examples": "sql/none.sql"}, "no file sql/none.sql"),
        ({"data__sources": {}}, "data.sources: .*at least 1"),
        ({"description": None}, "description"),
    ],
)
def test_a_wrong_value_says_where_what_and_what_is_allowed(broken, changes, says):
    with pytest.raises(CaseError, match=says):
        broken(**changes)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_feature_has_a_name_of_the_platform(broken, name):
    """FAULTS 8: in any spelling; the error says how to rename it."""
    feature = name.title()
    with pytest.raises(CaseError, match=f'columns of its own called {feature}.*"{feature}" AS its_{feature}'):
        broken(features__request=["age", feature])


def test_all_errors_come_at_once(broken):
    """Two mistakes are two lines, not two runs."""
    with pytest.raises(CaseError, match=r"2 to correct") as caught:
        broken(train__seed=-1, description=7)
    assert "train.seed" in str(caught.value)
    assert "description" in str(caught.value)


def test_what_follows_from_an_error_is_none_of_its_own(broken):
    """A list whose only entry is wrong is not called too short."""
    with pytest.raises(CaseError, match=r"1 to correct") as caught:
        broken(evaluate__bounds=[{"metric": "acuracy", "at_least": 0.5}])
    assert "evaluate.bounds.0.metric" in str(caught.value)


def test_a_file_that_is_not_yaml_says_the_line(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "case.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(CaseError, match="line 2"):
        load_case("mine", tmp_path)


def test_a_profile_changes_only_what_it_names():
    """Profiles are merged into the case, key by key."""
    full, smoke = load_case("credit", CONFIGS), load_case("credit", CONFIGS, "smoke")
    assert smoke.train.parameters == {**full.train.parameters, "n_estimators": 20}
    assert smoke.train.encoders == full.train.encoders


def test_the_case_of_the_docs_is_valid(tmp_path, monkeypatch):
    """The case of docs/guides/language-case.md is valid."""
    from cli.check import check
    from tasks.core.settings import settings

    text = (ROOT / "docs" / "guides" / "language-case.md").read_text(encoding="utf-8")
    folder = tmp_path / "tickets"
    folder.mkdir()
    (folder / "case.yaml").write_text(text.split("```yaml\n", 1)[1].split("```", 1)[0])
    shutil.copy(ROOT / "data" / "samples" / "tickets.jsonl", folder)
    monkeypatch.setenv("DRIFTLINE_CASES", str(tmp_path))
    settings.cache_clear()
    try:
        assert check("tickets").startswith("tickets is valid")
    finally:
        settings.cache_clear()


def test_a_waiver_of_no_feature_is_named(broken):
    """`driftline validate` finds the typing error, not the gates after training."""
    from cli.check import check_case

    uri = f"file://{ROOT}/data/samples/credit_default.parquet"
    changes = {"data__sources__clients__uri": uri, "features__views": {}}
    known = {"reason": "it is known", "by": "Ann Lee", "until": "2100-01-01"}
    assert "is valid" in check_case(broken(evaluate__waive={"age": known}, **changes))
    with pytest.raises(CaseError, match="no feature or gate agee to waive"):
        check_case(broken(evaluate__waive={"agee": known}, **changes))


@pytest.mark.parametrize("as_of", ["2005-10-01", "'2005-10-01'", "2005-10-01T00:00:00+00:00"])
def test_a_moment_without_a_zone_is_utc(tmp_path, as_of):
    """A day, in quotes or not, is its start."""
    folder = tmp_path / "credit"
    folder.mkdir()
    text = (CONFIGS / "credit" / "case.yaml").read_text(encoding="utf-8")
    (folder / "case.yaml").write_text(text.replace("as_of: 2005-10-01", f"as_of: {as_of}"))
    assert load_case("credit", tmp_path).as_of == datetime(2005, 10, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("prompts/gone.yaml", "no prompt file prompts/gone.yaml in the case folder; there are: prompts/guide.yaml"),
        ("prompts/guide.yaml", "{{ passages }} needs knowledge"),
    ],
)
def test_a_prompt_file_that_does_not_fit_is_an_error(tmp_path: Path, prompt: str, says: str):
    """A file that does not exist; passages of a case that has no documents."""
    folder = tmp_path / "museum"
    (folder / "prompts").mkdir(parents=True)
    content = "messages: [{role: user, content: '{{ message }} {{ passages }}'}]"
    (folder / "prompts" / "guide.yaml").write_text(content)
    case: dict = {"kind": "llm", "description": "A guide.", "model": {"source": "file://base.gguf"}, "prompt": prompt}
    case |= {"answer": {"format": "text", "abstain": "No."}, "pairs": {"sources": ["questions"]}}
    case |= {"data": {"sources": {"questions": {"uri": "file://q.jsonl", "key": ["prompt"]}}}}
    gate = {"loss": "missing_facts"}
    case |= {"evaluate": {"bounds": [{"metric": "required_facts_recall", "at_least": 0}], "champion_gate": gate}}
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    with pytest.raises(CaseError, match=re.escape(says)):
        load_case("museum", tmp_path)
