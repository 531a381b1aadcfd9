"""A run works in a tree of the commit that it was started for, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.deployed import checkout as place
from flows.deployed.checkout import (
    KEEP,
    changed_files,
    checkout_commit,
    code_directory,
    fetch,
    require_published,
    run_directory,
)
from tasks.core.errors import DriftlineError, InputError, Unavailable
from tasks.core.lineage import read_lineage
from tasks.core.settings import ROOT
from tasks.data.snapshots import fetch_data
from tests.git.listener import commit, git, repositories


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Our repository with its origin, a developer's clone of that, and a state folder."""
    bare, clone = repositories(tmp_path)
    git(tmp_path, "clone", "--quiet", str(bare), "ours")
    return tmp_path / "ours", clone, tmp_path / "state"


def test_a_tree_is_the_whole_commit_and_leaves_the_repository_alone(folders):
    """Its files, its commit in the lineage, .env shared; our branch, refs and files stay as they were."""
    repository, clone, state = folders
    (repository / ".env").write_text("A=1")
    before = git(repository, "rev-parse", "HEAD", "origin/main")
    new = commit(clone, README_md="changed", _gitignore=".env")
    git(clone, "push", "--quiet", "origin", "main")
    assert fetch(repository, state, new) == new
    tree = checkout_commit(new, repository, state)
    assert (tree / "README.md").read_text() == "changed"
    assert (tree / ".env").read_text() == "A=1"
    assert (read_lineage(tree).commit, read_lineage(tree).dirty) == (new, False)
    assert git(repository, "rev-parse", "HEAD", "origin/main") == before
    assert (repository / "README.md").read_text() == "hello"
    assert checkout_commit(new, repository, state) == tree


def test_a_partial_tree_is_replaced_and_old_removed(folders):
    """What a killed process left is no tree; after a month without a run a tree is removed, one in use is not."""
    repository, _, state = folders
    first = git(repository, "rev-parse", "HEAD")
    half = state / "commits" / f".{first}.1.tmp"
    half.mkdir(parents=True)
    tree = checkout_commit(first, repository, state)
    assert (tree / "README.md").exists()
    for folder in (half, tree):
        os.utime(folder, (0, 0))
    used = state / "commits" / ("1" * 40)
    used.mkdir()
    git(repository, "config", "user.email", "x@example.org")
    second = commit(repository, other_md="x")
    checkout_commit(second, repository, state)
    assert {path.name for path in (state / "commits").iterdir() if path.is_dir()} == {used.name, second}
    assert KEEP > 86_400


def test_changed_files_whatever_they_are_called(folders):
    """Quotes, blanks, newlines, UTF-8; a renamed file counts where it was and where it is."""
    repository, clone, state = folders
    old = git(clone, "rev-parse", "HEAD")
    names = ['a "quoted" name', "two\nlines", "größe/ü.csv", "back\\slash"]
    for name in names:
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_text("x")
    git(clone, "mv", "README.md", "READ.md")
    new = commit(clone)
    git(clone, "push", "--quiet", "origin", "main")
    assert fetch(repository, state, new)
    assert sorted(changed_files(repository, old, new)) == sorted([*names, "README.md", "READ.md"])


def test_a_rewritten_history_differs_by_what_is_not_there_any_more(folders):
    """From a known commit: what differs, so that taking a change back counts; else all files."""
    repository, clone, state = folders
    first = git(clone, "rev-parse", "HEAD")
    second = commit(clone, case_yaml="a: 1")
    git(clone, "push", "--quiet", "origin", "main")
    assert fetch(repository, state, second) == second
    git(clone, "reset", "--quiet", "--hard", first)
    git(clone, "push", "--quiet", "--force", "origin", "main")
    assert fetch(repository, state, first) == first
    assert changed_files(repository, second, first) == ["case.yaml"]
    for old in ("0" * 40, "1" * 40):
        assert changed_files(repository, old, second) == ["README.md", "case.yaml"]


def test_a_tag_is_followed_to_its_commit_and_what_is_gone_is_not_there(folders):
    """An annotated tag names a commit; a commit that nobody can get any more is None; no origin is an error."""
    repository, clone, state = folders
    head = git(clone, "rev-parse", "HEAD")
    git(clone, "tag", "--annotate", "--message", "x", "a-v1")
    git(clone, "push", "--quiet", "origin", "a-v1")
    tag = git(clone, "rev-parse", "a-v1")
    assert tag != head
    assert fetch(repository, state, tag) == head
    assert fetch(repository, state, "1" * 40) is None
    git(repository, "remote", "set-url", "origin", "/nowhere")
    with pytest.raises(Unavailable, match="git fetch failed"):
        fetch(repository, state, head)


def test_data_behind_a_pointer_comes_into_the_tree(folders):
    """What was added to DVC and pushed to its remote elsewhere lies in the tree; what was not pushed is an error."""
    from dvc.repo import Repo

    repository, clone, state = folders
    Repo.init(str(clone)).close()
    (clone / ".dvc" / "config").write_text(f"[core]\n remote = x\n['remote \"x\"']\n url = {state / 'remote'}\n")
    added = []
    for name in ("pushed.csv", "kept.csv"):
        (clone / name).write_text(name)
        with Repo(str(clone)) as dvc:
            dvc.add(str(clone / name))
            if name == "pushed.csv":
                dvc.push()
        added.append(commit(clone))
    git(clone, "push", "--quiet", "origin", "main")
    git(repository, "pull", "--quiet")
    tree = checkout_commit(added[-1], repository, state)
    fetch_data(["pushed.csv", "README.md", "nowhere.csv"], tree, repository)
    assert (tree / "pushed.csv").read_text() == "pushed.csv"
    assert not read_lineage(tree).dirty
    with pytest.raises(Unavailable, match=r"(?s)is not available.*kept\.csv\.dvc"):
        fetch_data(["kept.csv"], tree, repository)


def test_a_run_gets_its_commits_code_or_none(folders, monkeypatch: pytest.MonkeyPatch):
    """Without a commit: this repository. With one: its own tree, unchanged, its packages installed; else an error."""
    repository, clone, state = folders
    assert code_directory() == {"directory": str(ROOT)}, "this process belongs to no run"
    assert run_directory("") == ROOT
    first = commit(clone, requirements_lock="prefect==0.0.1\n# no pin")
    git(clone, "push", "--quiet", "origin", "main")
    second = commit(clone, requirements_lock="pytest>=1")
    git(clone, "push", "--quiet", "origin", "main")
    assert fetch(repository, state, second)
    tree = checkout_commit(second, repository, state)
    monkeypatch.setattr(place, "ROOT", tree)
    os.utime(tree, (0, 0))
    assert run_directory(second) == tree
    assert tree.stat().st_mtime > 0, "it was not marked as used"
    (tree / "README.md").write_text("other")
    with pytest.raises(DriftlineError, match="no longer available"):
        run_directory(second)
    monkeypatch.setattr(place, "ROOT", repository)
    with pytest.raises(DriftlineError, match="no longer available"):
        run_directory(second)
    monkeypatch.setattr(place, "ROOT", checkout_commit(first, repository, state))
    with pytest.raises(InputError, match=r"(?s)locks other packages.*prefect 3\."):
        run_directory(first)


def test_only_what_is_published_is_checked_out(folders):
    """A commit of the branch or of a tag; no other object, name or expression, whether it is here or not."""
    repository, clone, state = folders
    first = git(clone, "rev-parse", "HEAD")
    published = commit(clone, a_md="x")
    git(clone, "push", "--quiet", "origin", "main")
    git(clone, "checkout", "--quiet", "-b", "mine")
    tagged = commit(clone, b_md="x")
    git(clone, "tag", "--annotate", "--message", "x", "v1")
    git(clone, "push", "--quiet", "origin", "v1")
    unmerged = commit(clone, c_md="x")
    git(clone, "push", "--quiet", "origin", "mine")
    fetch(repository, state, unmerged)
    for allowed in (first, published, tagged):
        require_published(allowed, repository, "main")
    tree, blob = git(clone, "rev-parse", f"{first}^{{tree}}", f"{first}:README.md").split()
    tag = git(clone, "rev-parse", "v1")
    others = (unmerged, tree, blob, tag, "1" * 40, published[:12], published.upper(), f"{published}~1", f" {published}")
    names = ("main", "HEAD", "v1", "refs/heads/main", "--all", "-h", "--upload-pack=x", "../../x", "", f"{published}\n")
    for refused in (*others, *names):
        with pytest.raises(InputError, match="not published"):
            require_published(refused, repository, "main")
    git(clone, "checkout", "--quiet", "main")
    later = commit(clone, d_md="x")
    git(clone, "push", "--quiet", "origin", "main")
    fetch(repository, state, later)
    require_published(later, repository, "main")
    git(clone, "reset", "--quiet", "--hard", published)
    git(clone, "push", "--quiet", "--force", "origin", "main")
    fetch(repository, state, published)
    with pytest.raises(InputError, match="not published"):  # any more
        require_published(later, repository, "main")
