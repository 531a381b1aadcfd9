"""A push starts just the flows of the cases whose files changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.deployed.path_filters import CaseFiles, flows_to_start, read_cases
from tasks.core.git_push import GitPush
from tests.end_to_end.small import change_case, make_case

CASES = {
    "a": CaseFiles(
        name="a", folder="configs/a", sources=("data/shared.csv", "configs/a/rows.csv"), models=("models/a",)
    ),
    "b": CaseFiles(name="b", folder="configs/b", sources=("data/shared.csv", "data/b")),
    "b-two": CaseFiles(name="b-two", folder="configs/b-two"),
    "help": CaseFiles(
        name="help", folder="configs/help", documents=("docs/**/*.md", "configs/help/pages", "manuals/?.pdf")
    ),
}
EVERY = [("train", "a"), ("train", "b"), ("train", "b-two"), ("train", "help")]
NONE: list[tuple[str, str]] = []


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ("configs/a/case.yaml", [("train", "a")]),
        ("configs/a/sql/deep/x.sql", [("train", "a")]),
        ("configs/b-two/case.yaml", [("train", "b-two")]),
        ("configs/gone/case.yaml", NONE),
        ("configs/a.yaml", NONE),
        ("configs/platform.yaml", EVERY),
        ("configs/a/rows.csv", [("prepare", "a")]),
        ("configs/a/rows.csv.dvc", [("prepare", "a")]),
        ("configs/a/rows.csv configs/a/case.yaml", [("train", "a")]),
        ("data/shared.csv", [("prepare", "a"), ("prepare", "b")]),
        ("data/shared.csv.dvc configs/b/case.yaml", [("prepare", "a"), ("train", "b")]),
        ("data/b/2013-01.parquet", [("prepare", "b")]),
        ("data/b2/2013-01.parquet", NONE),
        ("data/snapshots/b.dvc", [("prepare", "b")]),
        ("data/snapshots/b-two.dvc", [("prepare", "b-two")]),
        ("models/a/weights.gguf", [("train", "a")]),
        ("flows/train.py", EVERY),
        ("tasks/train/tabular/fit.py", EVERY),
        ("requirements.lock", EVERY),
        ("pyproject.toml", EVERY),
        ("flows/train.py data/shared.csv", EVERY),
        ("README.md CHANGELOG.md docs/figure.png docs.md", NONE),
        ("docs/llm.md", [("release", "help")]),
        ("docs/guides/deep/x.md", [("release", "help")]),
        ("configs/help/pages/x.md", [("release", "help")]),
        ("manuals/a.pdf", [("release", "help")]),
        ("manuals/ab.pdf", NONE),
        ("docs/llm.md configs/help/case.yaml", [("train", "help")]),
        ("tests/conftest.py benchmarks/table.py deployments/local/supervisord.conf Makefile .ci/run", NONE),
        ("my/flows/x.md my/tasks/x.py my/configs/a/case.yaml", NONE),
        ("data/samples/other.parquet", NONE),
        ("", NONE),
    ],
)
def test_changed_files_ask_for_flows(changed: str, runs: list[tuple[str, str]]):
    """Sources and pointers prepare, configuration and code train, documents of a knowledge base release."""
    assert flows_to_start("", changed.split(), CASES) == runs


@pytest.mark.parametrize(
    ("tag", "names"),
    [
        ("a/v1", ["a"]),
        ("a-v1", ["a"]),
        ("a", ["a"]),
        ("b-two-v1", ["b-two"]),
        ("b-v1", ["b"]),
        ("v1", ["a", "b", "b-two", "help"]),
        ("ab-v1", ["a", "b", "b-two", "help"]),
        ("gone/v1", ["a", "b", "b-two", "help"]),
    ],
)
def test_a_tag_releases_the_case_that_it_names_or_all(tag: str, names: list[str]):
    """The longest name counts; what changed does not."""
    assert flows_to_start(tag, ["docs/x.md"], CASES) == [("release", name) for name in names]


@pytest.mark.parametrize(
    ("ref", "new", "counts"),
    [
        ("refs/heads/main", "1" * 40, True),
        ("refs/heads/main", "0" * 40, False),
        ("refs/heads/mine", "1" * 40, False),
        ("refs/heads/x/main", "1" * 40, False),
        ("refs/tags/main", "1" * 40, True),
        ("refs/tags/v1", "0" * 64, False),
        ("refs/notes/main", "1" * 40, False),
    ],
)
def test_only_the_branch_and_tags_count(ref: str, new: str, counts: bool):
    """Another branch, another kind of ref and whatever was deleted starts none."""
    assert GitPush(id="1", ref=ref, old="0" * len(new), new=new).triggers("main") is counts


def test_a_case_says_which_files_are_its_own(tmp_path: Path):
    """Sources in the case's folder and outside, in profiles too; a broken case is one, absolute paths are not ours."""
    folder = make_case(tmp_path / "configs", "good")
    change_case(folder, data__sources__far={"uri": "file://../../data/far.csv"}, target__x="file:///data/away.csv")
    change_case(folder, profiles={"smoke": {"data": {"sources": {"patients": {"uri": "file://few.csv"}}}}})
    change_case(folder, serve={"embedder": "file://../../models/embedder"})
    change_case(folder, knowledge={"documents": {"docs": {"uri": "file://../../docs/**/*.md"}}})
    broken = tmp_path / "configs" / "broken" / "case.yaml"
    broken.parent.mkdir()
    broken.write_text("a: [")
    cases = read_cases(tmp_path / "configs", tmp_path)
    assert cases == {
        "broken": CaseFiles(name="broken", folder="configs/broken"),
        "good": CaseFiles(
            name="good",
            folder="configs/good",
            sources=("configs/good/patients.csv", "data/far.csv", "configs/good/few.csv"),
            documents=("docs/**/*.md",),
            models=("models/embedder",),
        ),
    }
    outside = read_cases(tmp_path / "configs", tmp_path / "tree")
    assert flows_to_start("", ["configs/good/case.yaml"], outside) == NONE
    assert flows_to_start("", ["flows/train.py"], outside) == [("train", "broken"), ("train", "good")]


@pytest.mark.parametrize(
    ("changed", "runs"),
    [
        ("prompts/guide.yaml", [("release", "museum")]),
        ("prompts/guide.tests.yaml", [("release", "museum")]),
        ("prompts/draft.yaml", NONE),
        ("prompts/guide.yaml case.yaml", [("train", "museum")]),
        ("prompts/guide.yaml questions.jsonl", [("release", "museum")]),
    ],
)
@pytest.mark.parametrize("tuned", [False, True])
def test_a_changed_prompt_is_evaluated_and_released(
    tmp_path: Path, changed: str, runs: list[tuple[str, str]], tuned: bool
):
    """The one that the case uses; where the model is tuned with it, training comes first."""
    folder = tmp_path / "configs" / "museum"
    folder.mkdir(parents=True)
    sources = {"questions": {"uri": "file://questions.jsonl"}}
    case: dict[str, Any] = {"kind": "llm", "prompt": "prompts/guide.yaml", "data": {"sources": sources}}
    case |= {"train": {"max_tokens": 64}} if tuned else {}
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    paths = [f"configs/museum/{path}" for path in changed.split()]
    started = flows_to_start("", paths, read_cases(tmp_path / "configs", tmp_path))
    assert started == ([("train", "museum")] if tuned else runs)
