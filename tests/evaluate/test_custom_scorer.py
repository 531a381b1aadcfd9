"""A case's own scorer is a function in its folder; what is wrong with it names file and line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.core.errors import CaseError
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.custom_scorer import CustomScorer
from tasks.evaluate.language.inference import Scoring, score, scores_of
from tasks.evaluate.language.metrics import answer_losses, intervals_of, measure, slices_of
from tasks.language.text_scoring import TextScorer
from tests.train.pairs import write_pairs

BRIEF = """
def brief(message, answer, reference, required_facts):
    return 1.0 if len(answer.split()) <= 3 else 0.0
"""


def evaluation(folder: Path, scorer: str = "scorers.py:brief", **changes) -> LanguageEvaluation:
    values = {
        "scorers": {"brief": scorer},
        "bounds": [{"metric": "scorers.brief", "at_least": 0.5}],
        "champion_gate": {"loss": "scorers.brief", "min_rows": 30},
    }
    return LanguageEvaluation.model_validate(values | changes, context={"folder": folder})


def loaded(folder: Path, source: str):
    (folder / "scorers.py").write_text(source)
    return CustomScorer.of(evaluation(folder).scorers["brief"]).load()


def test_its_score_is_a_metric_and_a_loss(tmp_path):
    """It has a mean, an interval, slices and losses, as every scorer of the table; Parquet keeps it."""
    brief = loaded(tmp_path, BRIEF)
    pairs = pd.read_parquet(write_pairs(tmp_path / "pairs", train=6, held=4) / "evaluation.parquet")
    texts = pd.DataFrame({"text": ["one", "one two", "one two three four", ""]})
    scored = score(pairs.assign(unsafe=False), texts, Scoring(TextScorer(), {"brief": brief}), "served")
    scored.to_parquet(tmp_path / "scores.parquet")
    stored = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores_of(stored) == scores_of(scored)
    assert measure(stored)["scorers.brief"] == 0.75
    assert "scorers.brief" in intervals_of(stored)
    assert all("scorers.brief" in each for each in slices_of(stored, "intent").values())
    assert answer_losses(stored, "scorers.brief").tolist() == [0, 0, 1, 0]
    assert answer_losses(stored, "degenerate").tolist() == [0, 0, 0, 1]


def test_its_source_is_in_the_digest(tmp_path):
    """A changed function is another evaluation, though its name stays."""
    (tmp_path / "scorers.py").write_text(BRIEF)
    before = evaluation(tmp_path)
    (tmp_path / "scorers.py").write_text(BRIEF.replace("3", "4"))
    assert evaluation(tmp_path).digest != before.digest
    again = LanguageEvaluation.model_validate(before.model_dump())
    assert again == before, "what is stored is read back without the file"


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("../scorers.py:brief", "lies outside the case folder"),
        ("other.py:brief", r"no file other.py in the case folder; there are: scorers.py"),
        ("scorers.py:short", r"scorers.py has no function short; there are: brief, two"),
        ("scorers.py:two", r"scorers.py, line 4: two takes a, b; it must take message, answer"),
        ("os.system", "not FILE.py:FUNCTION"),
    ],
)
def test_only_a_function_of_the_folder_is_read(tmp_path, scorer, message):
    case = tmp_path / "case"
    case.mkdir()
    (tmp_path / "scorers.py").write_text(BRIEF)
    (case / "scorers.py").write_text(BRIEF + "def two(a, b): ...\n")
    with pytest.raises(ValidationError, match=message):
        evaluation(case, scorer)


def test_a_file_is_not_executed_by_reading_it(tmp_path):
    """Reading the case runs nothing; a syntax error names its line."""
    (tmp_path / "scorers.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{BRIEF}")
    evaluation(tmp_path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "scorers.py").write_text("x = 1\ndef brief(message answer): ...\n")
    with pytest.raises(ValidationError, match=r"scorers.py, line 2"):
        evaluation(tmp_path)


@pytest.mark.parametrize(
    ("source", "where", "found"),
    [
        (BRIEF.replace("len(answer.split())", "len(answer.splits())"), "scorers.py, line 3", "AttributeError"),
        (BRIEF.replace("1.0", "2"), "scorers.py", "2 for the answer 'Paris'"),
        (BRIEF.replace("1.0", "float('nan')"), "scorers.py", "nan for the answer"),
        (BRIEF.replace("1.0", "'good'"), "scorers.py", "ValueError"),
    ],
    ids=["error", "too much", "nan", "text"],
)
def test_a_wrong_score_names_the_line(tmp_path, source, where, found):
    with pytest.raises(CaseError) as caught:
        loaded(tmp_path, source)("Which?", "Paris", "", ())
    assert caught.value.where == where
    assert found in caught.value.found


def test_a_file_that_fails_names_the_line(tmp_path):
    with pytest.raises(CaseError, match="can't be loaded") as caught:
        loaded(tmp_path, "import nothing_of_this_name\n" + BRIEF)
    assert caught.value.where == "scorers.py, line 1"


@pytest.mark.parametrize("changes", [{"bounds": [{"metric": "scorers.other", "at_least": 1}]}, {"scorers": {}}])
def test_a_scorer_that_is_not_declared_is_refused(tmp_path, changes):
    (tmp_path / "scorers.py").write_text(BRIEF)
    with pytest.raises(ValidationError, match=r"scorers\.\w+ is no metric of answers"):
        evaluation(tmp_path, **changes)
