"""Sources behind https:// and s3://, fetched from real servers on this machine."""

from __future__ import annotations

import gzip
import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.serving.process import free_port
from tasks.core.errors import CaseError, DataError, DriftlineError, Unavailable
from tasks.data.config import Source
from tasks.data.origins import remote
from tasks.data.origins.fetch import check_source, fetch_source
from tests.waiting import wait_for

ROWS = b"id,value\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(20_000))
TOKEN = "pa&ss/word"


class Site(http.server.BaseHTTPRequestHandler):
    """A web server whose paths behave well or badly."""

    protocol_version = "HTTP/1.1"
    etag = "one"
    requests: list[str] = []  # noqa: RUF012 (of all connections)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if path == "/silent.csv":
            time.sleep(3)
        status = {"/gone.csv": 404, "/private.csv": 403, "/broken.csv": 503}.get(path, 200)
        body = ROWS if status == 200 else b"no"
        self.send_response(status)
        if path == "/gzip.csv" and "gzip" not in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)  # as some servers do, whatever was asked for
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "text/csv; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.etag)
        self.end_headers()
        if with_body and path == "/half.csv":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif with_body and path == "/slow.csv":
            for start in range(0, len(body), 100):
                time.sleep(0.02)
                self.wfile.write(body[start : start + 100])
        elif with_body:
            self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[str]:
    Site.etag, Site.requests = "one", []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def source(uri: str) -> Source:
    return Source(uri=uri, key=("id",))


def test_a_file_is_downloaded_once_and_again_when_it_changed(site: str, tmp_path: Path):
    """The ETag tells that nothing changed: no byte is read again."""
    first = fetch_source(source(f"{site}/rows.csv"), tmp_path, tmp_path / "cache")
    assert [path.name for path in first.paths] == ["rows.csv"]
    assert first.paths[0].read_bytes() == ROWS
    assert fetch_source(source(f"{site}/rows.csv"), tmp_path, tmp_path / "cache") == first
    assert Site.requests.count("GET /rows.csv") == 1
    Site.etag = "two"
    assert fetch_source(source(f"{site}/rows.csv"), tmp_path, tmp_path / "cache").digest == first.digest
    assert Site.requests.count("GET /rows.csv") == 2


@pytest.mark.parametrize("path", ["gzip.csv", "download?format=csv"])
def test_what_the_server_says_of_the_file_is_used(site: str, tmp_path: Path, path: str):
    """A body that the server packed is unpacked; an address without a suffix gets that of its content type."""
    (fetched,) = fetch_source(source(f"{site}/{path}"), tmp_path, tmp_path / "cache").paths
    assert fetched.read_bytes() == ROWS
    assert fetched.suffix == ".csv"


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("gone.csv", DataError, "404"),
        ("private.csv", DataError, "403"),
        ("broken.csv", Unavailable, "503"),
        ("half.csv", Unavailable, "not completely"),
        ("slow.csv", Unavailable, "too slow"),
        ("silent.csv", Unavailable, "does not answer"),
    ],
)
def test_a_failing_server_changes_nothing(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: type[DriftlineError], says: str
):
    """Away, slow or half delivered: a clear error, and the cache has no part of a file."""
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(remote, "SLOWEST", 100_000)
    with pytest.raises(kind, match=says):
        fetch_source(source(f"{site}/{path}"), tmp_path, tmp_path / "cache")
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_a_server_that_is_away_leaves_the_last_fetch(site: str, tmp_path: Path):
    """What was fetched before stays as it was, and a later fetch goes on from it."""
    first = fetch_source(source(f"{site}/rows.csv"), tmp_path, tmp_path / "cache")
    record = (tmp_path / "cache" / "fetched.json").read_bytes()
    away = source(f"http://127.0.0.1:{free_port()}/rows.csv")
    for call in (lambda: fetch_source(away, tmp_path, tmp_path / "cache"), lambda: check_source(away, tmp_path)):
        with pytest.raises(Unavailable, match="does not answer"):
            call()
    assert (tmp_path / "cache" / "fetched.json").read_bytes() == record
    assert fetch_source(source(f"{site}/rows.csv"), tmp_path, tmp_path / "cache") == first


def test_a_secret_comes_from_the_environment_and_is_never_shown(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither an error nor the record has it; a variable that is not set is named."""
    uri = f"{site}/private.csv?token=$ROWS_TOKEN"
    with pytest.raises(CaseError, match="ROWS_TOKEN"):
        fetch_source(source(uri), tmp_path, tmp_path / "cache")
    monkeypatch.setenv("ROWS_TOKEN", TOKEN)
    with pytest.raises(DataError) as caught:
        fetch_source(source(uri), tmp_path, tmp_path / "cache")
    assert "word" not in str(caught.value)
    fetch_source(source(f"{site}/rows.csv?token=$ROWS_TOKEN"), tmp_path, tmp_path / "cache")
    assert Site.requests[-1].endswith("?token=pa%26ss/word")
    assert b"word" not in (tmp_path / "cache" / "fetched.json").read_bytes()


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:secret@host/rows.csv",
        "postgresql://me:secret@host/rows",
        "https://host/rows.csv?X-Amz-Date=1&X-Amz-Signature=abc",
        "https://host/rows.csv?access_token=abc",
    ],
)
def test_a_secret_in_a_case_is_refused(uri: str):
    """A case is recorded and committed: a secret in it would be, too."""
    with pytest.raises(ValueError, match=r"write \$VARIABLE"):
        Source(uri=uri, key=("id",), query="SELECT 1" if uri.startswith("post") else "")


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    """A real S3 server with some files."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    program = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if program is None:
        pytest.skip("no S3 server is installed: pip install 'moto[server,s3]', or set MOTO_SERVER to its moto_server")
    import s3fs

    port = free_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        command = [program, "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            s3 = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            assert wait_for(lambda: s3.mkdir("rows") is None)
            for name in ("a.csv", "b.csv", "_SUCCESS", "parts/c.csv"):
                s3.pipe_file(f"rows/{name}", b"id\n" + name.encode() + b"\n")
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("s3://rows/a.csv", ["a.csv"]),
        ("s3://rows/*.csv", ["a.csv", "b.csv"]),
        ("s3://rows/", ["a.csv", "b.csv", "parts/c.csv"]),
        ("s3://rows/parts", ["c.csv"]),
    ],
)
def test_a_file_folder_or_pattern_on_s3(bucket: None, tmp_path: Path, uri: str, names: list[str]):
    """S3 has folders and patterns as this machine has."""
    fetched = fetch_source(source(uri), tmp_path, tmp_path / "cache")
    assert [file.name for file in fetched.files] == names
    assert fetched.paths[0].read_text().startswith("id\n")
    assert fetch_source(source(uri), tmp_path, tmp_path / "cache") == fetched


def test_a_changed_object_is_fetched_again(bucket: None, tmp_path: Path):
    """The ETag of an object tells its content; new objects are new rows."""
    import s3fs

    fetch_source(source("s3://rows/*.csv"), tmp_path, tmp_path / "cache")
    s3 = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    s3.pipe_file("rows/b.csv", b"id\nB.csv\n")
    s3.pipe_file("rows/d.csv", b"id\nd\n")
    again = fetch_source(source("s3://rows/*.csv"), tmp_path, tmp_path / "cache")
    assert again.changes == "1 new (d.csv), 1 changed (b.csv)"
    s3.rm(["rows/d.csv"])


@pytest.mark.parametrize("uri", ["s3://nowhere/a.csv", "s3://rows/none.csv", "s3://rows/*.parquet"])
def test_what_is_not_on_s3_is_refused(bucket: None, tmp_path: Path, uri: str):
    """A bucket, object or pattern that names nothing."""
    with pytest.raises(DataError):
        fetch_source(source(uri), tmp_path, tmp_path / "cache")
