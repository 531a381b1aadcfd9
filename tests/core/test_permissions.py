"""Promise: what we write is for its owner alone, but for files that the user's git tracks; .env is read if private."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.errors import CaseError
from tasks.core.permissions import make_all_private, make_private, write_shared
from tasks.core.settings import ROOT, read_dotenv


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_an_earlier_version_s_state_is_closed(tmp_path: Path) -> None:
    """Folders and files lose every permission of others; links are not followed, and DVC's objects keep their mode."""
    state = tmp_path / "state"
    (state / "a").mkdir(parents=True, mode=0o755)
    outside = tmp_path / "outside"
    for path, mode in ((state / "a" / "f", 0o664), (state / "a" / "run", 0o755), (outside, 0o644)):
        path.write_text("x")
        path.chmod(mode)
    (state / "a" / "object").write_text("x")
    (state / "a" / "object").chmod(0o444)
    (state / "link").symlink_to(outside)
    make_all_private(state)
    modes = {str(path.relative_to(state)): mode_of(path) for path in state.rglob("*") if not path.is_symlink()}
    assert modes == {"a": 0o700, "a/f": 0o600, "a/run": 0o700, "a/object": 0o444}
    assert (mode_of(state), mode_of(outside)) == (0o700, 0o644)


def test_a_state_folder_becomes_private(tmp_path: Path) -> None:
    """Whatever the umask, and where it was there already."""
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o777)
    make_private(there)
    make_private(tmp_path / "new" / "state")
    assert [mode_of(path) for path in (there, tmp_path / "new" / "state")] == [0o700, 0o700]


def test_a_command_writes_for_its_owner_alone(tmp_path: Path) -> None:
    """Also where the user's umask lets everybody write."""
    code = (
        "import os; from tasks.core.settings import *; os.umask(0); apply_environment(Settings())\n"
        "(Settings().state / 'file').touch()"
    )
    state = tmp_path / "state"
    environment = {**os.environ, "DRIFTLINE_STATE": str(state), "DRIFTLINE_DATA": str(tmp_path / "data")}
    (tmp_path / "data" / "raw").mkdir(parents=True, mode=0o755)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    found = [path for path in (state, *state.rglob("*"), tmp_path / "data" / "raw") if mode_of(path) & 0o077]
    assert (state / "file").exists()
    assert not found


@pytest.mark.parametrize(
    ("around", "folder", "file"), [(0o755, 0o755, 0o644), (0o775, 0o775, 0o664), (0o700,) * 2 + (0o600,)]
)
def test_what_git_tracks_is_as_open_as_its_folder(tmp_path: Path, around: int, folder: int, file: int) -> None:
    """A case that `new` writes can be read by those who may read the cases beside it."""
    configs = tmp_path / "configs"
    configs.mkdir()
    configs.chmod(around)
    before = os.umask(0o077)
    try:
        path = write_shared(configs / "case" / "case.yaml", "text")
    finally:
        os.umask(before)
    assert (mode_of(path.parent), mode_of(path), path.read_text()) == (folder, file, "text")


def test_a_dotenv_file_is_read_as_its_users_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """export, quotes, comments, lines; what is set already stays, and a password is never interpolated."""
    for name in "ABCDEFGH":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("D", "set already")
    lines = [
        "# a comment",
        "A=plain # why",
        "export B='it # is'",
        'C="two\\nlines"',
        "D=file",
        "E=p${A}ss#word",
        "F=",
        "",
        "G = b ",
    ]
    path = tmp_path / ".env"
    path.write_text("\n".join([*lines, "a line that sets nothing", "H=ü"]))
    path.chmod(0o600)
    read_dotenv(path)
    found = {name: os.environ.get(name) for name in "ABCDEFGH"}
    for name in found:
        monkeypatch.delenv(name, raising=False)
    assert found == {
        **{"A": "plain", "B": "it # is", "C": "two\nlines", "D": "set already"},
        **{"E": "p${A}ss#word", "F": "", "G": "b", "H": "ü"},
    }


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o606, 0o602])
@pytest.mark.parametrize("linked", [False, True])
def test_a_dotenv_file_that_others_can_read_is_refused(tmp_path: Path, mode: int, linked: bool) -> None:
    """With what to type; in the tree of a commit it is a link to the repository's."""
    path = tmp_path / ".env"
    path.write_text("PASSWORD_IN_IT=hunter2")
    path.chmod(mode)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(CaseError, match="chmod 600") as caught:
        read_dotenv(link if linked else path)
    assert "PASSWORD_IN_IT" not in os.environ
    assert f"{mode:04o}" in caught.value.found
    path.chmod(0o400)
    read_dotenv(link if linked else path)
    assert os.environ.pop("PASSWORD_IN_IT") == "hunter2"


def test_a_repository_without_dotenv_works(tmp_path: Path) -> None:
    """None, or a link of a commit's tree to where none is."""
    read_dotenv(tmp_path / ".env")
    (tmp_path / "link").symlink_to(tmp_path / ".env")
    read_dotenv(tmp_path / "link")
