"""The gateway's webhook: what is signed is taken once, written down, and told to Prefect whatever dies meanwhile."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from services.gateway.webhooks import SECRET
from services.serving.process import free_port
from tasks.core.git_push import GitPush
from tasks.core.settings import AUTH_STRINGS, ROOT, Settings
from tests.gateway.stack import gateway, gateway_client
from tests.git.listener import Listener, prefect_at
from tests.waiting import wait_for

KEY = "a secret 'with' \"quotes\""
PUSH = {"ref": "refs/heads/main", "before": "1" * 40, "after": "2" * 40, "pusher": {"name": "Ada"}, "x": "ü"}


class Hooked:
    """A gateway with a secret, and the port where it looks for Prefect."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.settings = Settings(state=folder / "state", gateway_port=free_port())

    @contextmanager
    def running(self, number: int = 0, secret: str = KEY) -> Iterator[subprocess.Popen[bytes]]:
        """A process of it, on its port, or a further one on another."""
        port = free_port() if number else self.settings.gateway_port
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(SECRET, secret)
            patch.setenv("DRIFTLINE_PREFECT_URL", f"http://127.0.0.1:{self.port}/api")
            with gateway(self.settings, port, self.folder / f"{number}.log") as process:
                yield process

    def send(
        self, body: bytes | dict = PUSH, delivery: str = "one", kind: str = "push", signature: bytes | None = None
    ) -> httpx.Response:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        valid = b"sha256=" + hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest().encode()
        values = {"event": kind.encode(), "delivery": delivery.encode()}
        headers = {f"x-github-{name}": value for name, value in values.items()}
        headers["x-hub-signature-256"] = valid if signature is None else signature
        with gateway_client(self.settings) as http:
            return http.post("/hooks/git", content=body, headers=headers)


@pytest.fixture(autouse=True, scope="module")
def no_login_of_other_tests() -> Iterator[None]:
    """Prefect's place is taken by a listener of each test, with a login of its own or none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in AUTH_STRINGS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    hooked = Hooked(tmp_path_factory.mktemp("hooked"))
    with hooked.running():
        yield hooked


@pytest.fixture
def prefect(hooked: Hooked) -> Iterator[Listener]:
    with prefect_at(hooked.port) as listener:
        yield listener


def test_a_signed_push_makes_a_run_once(hooked: Hooked, prefect: Listener):
    """As the hook of a repository has it; the same delivery, or the same body under another id, is refused."""
    assert hooked.send().json() == {"status": "accepted"}
    assert wait_for(lambda: prefect.received)
    (delivered,) = prefect.received
    push = GitPush.model_validate(delivered["parameters"]["request"])
    assert delivered == push.run
    assert (push.id, push.ref, push.old, push.new, push.pusher) == ("one", "refs/heads/main", "1" * 40, "2" * 40, "Ada")
    again = {**PUSH, "after": "3" * 40}
    assert [hooked.send(delivery=name).status_code for name in ("one", "two")] == [409, 409]
    assert hooked.send(again, "one").status_code == 409
    assert hooked.send(again, "three").status_code == 202
    assert wait_for(lambda: len(prefect.received) == 2)


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        ({"signature": b"sha256=" + b"0" * 64}, 401, "does not match"),
        ({"signature": "ü".encode()}, 401, "malformed"),
        ({"signature": b""}, 401, "missing"),
        ({"body": b"payload=%7B%7D"}, 400, "application/json"),
        ({"body": {**PUSH, "after": "HEAD"}}, 400, "new"),
        ({"body": {"ref": "refs/heads/main"}}, 400, "before"),
        ({"body": b"[]"}, 400, "GitHub's form"),
        ({"delivery": ""}, 400, "id"),
    ],
)
def test_what_is_not_a_signed_push_is_refused(hooked: Hooked, prefect: Listener, sent: dict, status: int, says: str):
    """With the reason, and nothing of it reaches Prefect."""
    answer = hooked.send(**{"delivery": "wrong", **sent})
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert not prefect.received


@pytest.mark.parametrize(
    ("kind", "changed"),
    [("ping", {}), ("issues", {}), ("push", {"ref": "refs/heads/mine"}), ("push", {"after": "0" * 40})],
)
def test_irrelevant_deliveries_are_not_stored(hooked: Hooked, prefect: Listener, kind: str, changed: dict):
    """A ping, another event, another branch, a deleted one."""
    answer = hooked.send({**PUSH, **changed, "x": kind}, f"nothing-{kind}-{len(changed)}", kind)
    assert answer.status_code == 202
    assert answer.json()["status"].startswith("nothing to do")
    assert not prefect.received


def test_without_a_secret_nothing_is_taken(tmp_path: Path):
    """Not even what is signed with an empty one; the answer says what is missing."""
    hooked = Hooked(tmp_path)
    with hooked.running(secret=""):
        answer = hooked.send()
    assert answer.status_code == 403
    assert SECRET in answer.json()["error"]["message"]


def test_a_dead_prefect_and_a_killed_gateway_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Taken while Prefect is dead, the gateway killed -9: told in order by two that come after it, a run each."""
    hooked = Hooked(tmp_path)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ada:a:secret")
    with hooked.running() as process:
        for number in (1, 2, 3):
            taken = hooked.send({**PUSH, "after": f"{number}" * 40}, f"push-{number}")
            assert taken.json() == {"status": "accepted"}
        process.kill()
        process.wait()
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(hooked.running(number))
        prefect = stack.enter_context(prefect_at(hooked.port, auth="ada:a:secret"))
        assert wait_for(lambda: len({body["idempotency_key"] for body in prefect.received}) == 3, 40)
        assert hooked.send({**PUSH, "after": "9" * 40}, "push-4").status_code == 202
        assert wait_for(lambda: prefect.received[-1]["idempotency_key"] == "push push-4")
    first = list(dict.fromkeys(body["idempotency_key"] for body in prefect.received))
    assert first == [f"push push-{number}" for number in (1, 2, 3, 4)]
    assert KEY not in "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.log"))


def github(folder: Path) -> tuple[str, dict[str, str]]:
    """The lines that a GitHub runner would run, and what it tells them."""
    (step,) = yaml.safe_load((ROOT / "deployments/git/github.yml").read_text())["jobs"]["tell"]["steps"]
    (folder / "event.json").write_text(json.dumps({**PUSH, "after": "a" * 40}, indent=2, ensure_ascii=False))
    return step["run"], {"GITHUB_EVENT_PATH": str(folder / "event.json"), "GITHUB_RUN_ID": "17"}


def gitlab(_: Path) -> tuple[str, dict[str, str]]:
    """The lines that a GitLab runner would run, and what it tells them."""
    (lines,) = yaml.safe_load((ROOT / "deployments/git/gitlab-ci.yml").read_text())["driftline"]["script"]
    commits = {"CI_COMMIT_BEFORE_SHA": "1" * 40, "CI_COMMIT_SHA": "b" * 40, "CI_COMMIT_REF_NAME": 'a-"1"'}
    return lines, {
        **commits,
        "CI_COMMIT_TAG": 'a-"1"',
        "CI_PIPELINE_ID": "17",
        "CI_PROJECT_PATH": "a/b",
        "GITLAB_USER_LOGIN": "Ada",
    }


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="the scripts need openssl and curl")
@pytest.mark.parametrize(("script", "ref"), [(github, "refs/heads/main"), (gitlab, 'refs/tags/a-"1"')])
def test_the_scripts_for_hosted_ci_are_heard(
    hooked: Hooked, prefect: Listener, tmp_path: Path, script: Callable, ref: str
):
    """Their own lines, run by sh: the gateway takes the signature; tried again, the job ends well, nothing is told."""
    lines, variables = script(tmp_path)
    variables |= {SECRET: KEY, "DRIFTLINE_URL": hooked.settings.gateway}
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-e", "-c", lines], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert wait_for(lambda: prefect.refs == [ref])
    variables[SECRET] = "another"
    done = subprocess.run(["sh", "-e", "-c", lines], cwd=tmp_path, env={**os.environ, **variables}, check=False)
    assert done.returncode, "a refused push must fail the job"
