"""Promise: sockets lie in folders that only this user can enter, under paths that a socket can have."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from services.serving.fork_client import listen
from tasks.core.errors import Unavailable
from tasks.core.sockets import (
    make_socket_folder,
    private_temporary_folder,
    short_socket_path,
    split_url,
    unix_socket_path,
)


@pytest.mark.parametrize("length", [1, 40, 60, 100])
def test_a_socket_of_any_state_folder_can_be_bound(tmp_path: Path, length: int) -> None:
    """A state folder with a path longer than a socket's gets a short folder, of mode 0700 too."""
    folder = tmp_path / ("é" * length)[:length] / "sockets"
    folder.parent.mkdir()
    path = short_socket_path(folder, f"{'0' * 12}.sock")
    make_socket_folder(path)
    with listen(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert short_socket_path(folder.with_name("others"), "x.sock") != short_socket_path(folder, "x.sock")


def test_a_stale_socket_and_a_loose_folder_are_mended(tmp_path: Path) -> None:
    """What a killed process left is replaced, and a folder that others may enter is closed."""
    path = tmp_path / "sockets" / "a.sock"
    path.parent.mkdir(mode=0o755)
    make_socket_folder(path)
    listen(str(path)).close()
    with listen(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Nor is a link to one taken for a folder: whoever owns it could answer in our place."""
    path = tmp_path / "sockets" / "a.sock"
    path.parent.mkdir()
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(Unavailable, match="another user"):
        make_socket_folder(path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(Unavailable, match="not a folder"):
        make_socket_folder(link / "a.sock")


def test_a_long_temporary_folder_still_gives_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TMPDIR may be long, as on macOS and clusters."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with private_temporary_folder() as folder, listen(f"{folder}/release.sock"):
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700


def test_addresses_are_split() -> None:
    """Of both forms, with and without a path."""
    assert split_url("unix:///a b/c.sock/readyz?x=1") == ("unix:///a b/c.sock", "/readyz?x=1")
    assert split_url("unix:///a/c.sock") == ("unix:///a/c.sock", "/")
    assert split_url("http://127.0.0.1:80/a/b") == ("http://127.0.0.1:80", "/a/b")
    assert split_url("http://127.0.0.1:80") == ("http://127.0.0.1:80", "/")
    assert unix_socket_path("unix:///a/c.sock") == "/a/c.sock"
    assert unix_socket_path("http://host/unix://") == ""
