"""Promise: heads are anchored in a file, a git note and by a time stamp, and a log that is written anew is found.

The time stamps are those of a real server: `openssl ts` behind HTTP, on this machine.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from services.serving.process import free_port
from services.store.audit import record_audit_event
from services.store.audit_anchors import check_stamp, read_all_anchors, write_anchors
from services.store.audit_verify import chain_head, verify_chain
from services.store.database import Store
from tasks.core.errors import InputError, Unavailable
from tasks.core.settings import Settings

CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = tsa1
[tsa1]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
"""


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a time stamp server, and its root certificate."""
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "ts.cnf").write_text(CONFIG)
    (folder / "serial").write_text("01\n")
    key = ("-newkey", "rsa:2048", "-nodes", "-config", "ts.cnf")
    openssl(folder, "req", "-x509", *key, "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.pem")
    openssl(folder, "req", "-new", *key, "-subj", "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr")
    signed = ("-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", "ts.cnf")
    openssl(folder, "x509", "-req", "-in", "tsa.csr", *signed, "-extensions", "authority", "-out", "tsa.pem")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["content-length"])))
            openssl(folder, "ts", "-reply", "-config", "ts.cnf", "-queryfile", "query", "-out", "reply")
            self.send_response(200)
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", folder / "root.pem"
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path, authority: tuple[str, Path]) -> Settings:
    """Settings that anchor everywhere."""
    repository = tmp_path / "repository"
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "."], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        repository.mkdir(exist_ok=True)
        subprocess.run(["git", *command], cwd=repository, check=True)
    url, root = authority
    places = {"anchor_file": str(tmp_path / "elsewhere" / "anchors"), "anchor_git": str(repository)}
    return Settings(state=tmp_path, anchor_tsa=url, anchor_roots=str(root), **places)


def record(store: Store, *subjects: str) -> None:
    for subject in subjects:
        with store.writing() as connection:
            record_audit_event(connection, "key.create", subject)


def written_anew(store: Store) -> None:
    """All records again, with another decision among them: each digest fits."""
    with store.writing() as connection:
        connection.execute(text("DROP TRIGGER audit_events_no_delete"))
        connection.execute(text("DELETE FROM audit_events"))
    record(store, "a", "another", "c")


def test_a_log_that_is_written_anew_is_found(config: Settings) -> None:
    """By each place alone."""
    with closing(Store(config)) as store:
        record(store, "a", "b", "c")
        places = write_anchors(chain_head(store), config)
        assert len(places) == 2
        heads = read_all_anchors(config)
        assert verify_chain(store, heads).intact
        assert len(heads) == 2
        written_anew(store)
        assert verify_chain(store).intact
        for place in ("anchor_file", "anchor_git"):
            alone = config.model_copy(update={"anchor_file": "", "anchor_git": "", place: getattr(config, place)})
            found = verify_chain(store, read_all_anchors(alone))
            assert found.tampering is not None
            assert "its anchor has another digest" in found.tampering.finding


def test_a_time_stamp_is_of_its_head_alone(config: Settings, tmp_path: Path, authority: tuple[str, Path]) -> None:
    """Written on another head or record, or under another root, it is refused; the time is that of the server."""
    with closing(Store(config)) as store:
        record(store, "a")
        head = chain_head(store)
        write_anchors(head, config)
    stamped = read_all_anchors(config)[0]
    assert stamped.at is not None
    assert abs((check_stamp(stamped, config.anchor_roots) - stamped.at).total_seconds()) < 60
    file = Path(config.anchor_file)
    file.write_text(file.read_text().replace(head.digest, "f" * 64))
    with pytest.raises(InputError, match="time stamp is not of its anchor"):
        read_all_anchors(config)
    with pytest.raises(InputError, match="not of its anchor"):
        check_stamp(stamped.model_copy(update={"id": 7}), config.anchor_roots)
    other = tmp_path / "other.pem"
    openssl(
        tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k", "-out", "other.pem"
    )
    with pytest.raises(InputError, match="not of its anchor"):
        check_stamp(stamped, str(other))
    with pytest.raises(InputError, match="certificates of the time stamp server"):
        check_stamp(stamped, "")


def test_what_can_not_be_anchored_is_refused(config: Settings, tmp_path: Path) -> None:
    """No place, no repository, a server that is away or answers something else: nothing is written."""
    with closing(Store(config)) as store:
        head = chain_head(store)
    with pytest.raises(InputError, match="No place for an anchor"):
        write_anchors(head, Settings(state=tmp_path))
    with pytest.raises(InputError, match="repository of the anchors"):
        write_anchors(head, Settings(state=tmp_path, anchor_git=str(tmp_path / "nowhere")))
    for url in (f"http://127.0.0.1:{free_port()}", "http://[broken"):
        with pytest.raises(Unavailable, match="no time stamp"):
            write_anchors(head, config.model_copy(update={"anchor_tsa": url}))
    assert not Path(config.anchor_file).exists()
