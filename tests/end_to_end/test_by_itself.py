"""The stack left alone: drift retrains once, people hear of it and are asked, and whatever is killed goes on.

Its servers ask for the login that its first `up` created: all of this goes through it, whoever starts it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.rollout.config import Plan
from services.rollout.history import champion_history
from services.rollout.history import rollout_history as moved
from services.rollout.plan import begin_plan
from services.runtime.supervision import Supervisor
from services.store.approvals import Review, decide
from tasks.core.events import case_event
from tasks.core.local_secrets import secret_file
from tasks.core.settings import LOGIN_SECRET
from tests.end_to_end.home import Home, deployed
from tests.end_to_end.inbox import Inbox, listening
from tests.end_to_end.killing import HALF_PROMOTED, VICTIMS, outlives
from tests.end_to_end.small import CHANGED, change_case
from tests.end_to_end.terminal import Terminal, World
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("by_itself")

CASES = ("meters", "killed", "asking")


@pytest.fixture(scope="module")
def terminal(warm: Terminal) -> Terminal:
    return warm


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[Inbox, str]]:
    with listening() as (received, channels):
        yield received, channels


@pytest.fixture(scope="module")
def home(tmp_path_factory, terminal: Terminal, inbox) -> Iterator[Home]:
    """A deployed stack, and three cases whose first champions were all made at once, which breaks nothing."""
    with deployed(tmp_path_factory.mktemp("home"), terminal, CASES, inbox[1]) as home:
        home.make_champions(*CASES)
        change_case(home.world.cases / "asking", approval={"within": "1h"})
        yield home


def decision(home: Home, evidence: str) -> None:
    """The event of a monitor's decision, as if it came again."""
    payload = {"as_of": CHANGED, "evidence": evidence}
    home.tell(case_event("decision.retrain", "meters", payload, evidence=evidence))


def test_each_server_answers_and_is_found_by_a_second_up(home, terminal):
    """Up tells of each server, and leaves those that run as they are; Prefect's and MLflow's pages are there."""

    def pids() -> dict[str, int]:
        return {name: process["pid"] for name, process in Supervisor(home.world.state).processes().items()}

    before = pids()
    again = terminal.run(home.world, "up")
    assert again.code == 0, again.output
    assert {"gateway", "mlflow", "prefect", "worker"} <= {line.split()[1] for line in again.output.splitlines()}
    assert pids() == before
    mlflow = f"http://127.0.0.1:{home.world.variables['DRIFTLINE_MLFLOW_PORT']}"
    query = {"filter": "name = 'meters'", "max_results": 1}
    with httpx.Client(auth=home.login, follow_redirects=True, trust_env=False, verify=False) as http:
        for page in (home.ui, mlflow):
            assert "<html" in http.get(f"{page}/").raise_for_status().text
        found = http.post(f"{mlflow}/api/2.0/mlflow/experiments/search", json=query)
    assert found.json()["experiments"][0]["name"] == "meters"


def test_a_drift_retrains_once_and_people_hear_of_it(home, inbox):
    """monitor -> event -> retrain -> champion; the same evidence twenty times more starts nothing; one alert each."""
    before = home.world.champion("meters")
    assert home.ended(home.start("monitor", "meters", as_of=CHANGED))["state_type"] == "COMPLETED"
    assert wait_for(lambda: home.states("retrain", "meters") == ["COMPLETED"], 120), home.runs("retrain", "meters")
    assert home.world.champion("meters") != before
    (run,) = home.runs("retrain", "meters")
    evidence = run["parameters"]["request"]["by"].removeprefix("decision ")
    (signal,) = (home.world.state / "monitor" / "meters").glob(f"{before[:12]}/*/signal.json")
    assert json.loads(signal.read_text())["evidence"] == evidence

    for _ in range(20):
        decision(home, evidence)
    decision(home, "another")  # comes after those: when it has started a run, they have not
    assert wait_for(lambda: len(home.runs("retrain", "meters")) > 1, 30)
    assert [run["parameters"]["request"]["by"] for run in home.runs("retrain", "meters")[1:]] == ["decision another"]

    heard = [path for path, body in inbox[0].posts if "meters: retrain" in json.dumps(body)]
    assert sorted(heard) == ["/hook", "/slack"]
    (mail,) = [mail for mail in inbox[0].mails if "meters: retrain" in mail]
    assert "- rmse is" in mail
    home.ended(home.runs("retrain", "meters")[1]["id"])  # it holds the case until then


def test_people_hear_of_a_rollback_that_the_gateway_makes_by_itself(home, inbox):
    """A release on a plan that it can't meet: the gateway knows no Prefect, and yet the alert comes by its channels."""
    plan = Plan.model_validate({"steps": [{"percent": 50}], "slow_s": 1e-6, "slow": 0.01})
    with home.store() as store, store.reading() as of:
        champion, before = champion_history(of, "meters")
    with home.store() as store, httpx.Client(base_url=home.gateway, trust_env=False, verify=False, timeout=30) as http:
        begin_plan(store, "meters", before, plan)

        def goes_back() -> bool:
            row = {"rows": [{"one": 0.5, "two": 0.1}]}
            for number in range(10):
                answer = http.post("/v1/predict/meters", json=row, headers={"x-entity": f"person {number}"})
                answer.raise_for_status()
            return [share["digest"] for share in moved(store, "meters")[0]] == [champion]

        assert wait_for(goes_back)
    subject = f"meters: release {before:.12} was rolled back"
    assert wait_for(lambda: any(body.get("subject") == subject for _, body in inbox[0].posts))
    (body,) = [body["body"] for _, body in inbox[0].posts if body.get("subject") == subject]
    assert "calls slow: more than the 1% allowed" in body


def test_a_run_whose_heart_has_stopped_has_crashed(home, terminal):
    """Killed at a terminal, where no worker looks, before its first beat or later; all others are left alone.

    Others are those that ended, wait for a person or beat on, and those of other people, which may have no beats.
    By the automation as deployed, but after 10 s in place of three beats. Prefect has no beats under 30 s apart, so of
    the two that go on they come from here.
    """
    (existing,) = [
        each for each in home.http.post("/automations/filter", json={}).json() if "heartbeat" in each["name"]
    ]
    as_deployed = {name: existing[name] for name in ("name", "description", "enabled", "tags", "trigger", "actions")}
    flow = home.http.get("/flows/name/prepare").json()["id"]

    def begin_run(name: str, *tags: str) -> str:
        begun = {"flow_id": flow, "name": name, "state": {"type": "RUNNING"}, "tags": tags}
        return home.ask("POST", "/flow_runs/", begun)["id"]

    def beat(run: str) -> None:
        resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
        related = [{"prefect.resource.id": "prefect.tag.driftline", "prefect.resource.role": "tag"}]
        home.tell({"event": "prefect.flow-run.heartbeat", "resource": resource, "related": related, "payload": {}})

    def states() -> dict[str, str]:
        found = home.http.post("/flow_runs/filter", json={"flows": {"name": {"any_": ["prepare"]}}}).json()
        return {run["name"]: run["state_name"] for run in found if run["deployment_id"] is None}

    def crashed() -> bool:
        time.sleep(1)
        beat(living)
        return list(states().values()).count("Crashed") == 2

    sooner = {**as_deployed, "trigger": {**existing["trigger"], "within": 10}}
    home.ask("PUT", f"/automations/{existing['id']}", sooner)
    try:
        living, waiting = begin_run("living", "driftline"), begin_run("waiting", "driftline")
        begin_run("killed before its first beat", "driftline")
        begin_run("of other people")
        beat(waiting)
        time.sleep(1)  # of two events at once Prefect may take up the later one first
        suspended = {"state": {"type": "PAUSED", "name": "Suspended"}}
        home.ask("POST", f"/flow_runs/{waiting}/set_state", suspended)
        assert terminal.run(home.world, "prepare meters").code == 0
        killed = terminal.start(home.world, "prepare meters --as-of 2020-02-20")
        assert killed.wait_for(1), killed.text()
        killed.kill()
        assert wait_for(crashed, 30), states()
    finally:
        home.ask("PUT", f"/automations/{existing['id']}", as_deployed)
    assert states() == {
        "prepare meters": "Completed",
        "prepare meters as of 2020-02-20 00:00": "Crashed",
        "killed before its first beat": "Crashed",
        "of other people": "Running",
        "living": "Running",
        "waiting": "Suspended",
    }


def test_twenty_triggers_at_once_are_one_run(home):
    """One retrain of a case at a time; what comes meanwhile is cancelled, not queued."""
    existing = [home.start("retrain", "asking", as_of="2020-02-01T12:00:00Z") for _ in range(20)]
    states = [home.ended(id_)["state_type"] for id_ in existing]
    assert states.count("CANCELLED") == 19


def test_nothing_to_do_yet_is_no_failure(home):
    """A scheduled monitor that finds nothing asked of the champion ends well, and says so."""
    run = home.ended(home.start("monitor", "asking", as_of="2020-02-01T00:00:00Z"))
    assert run["state_type"] == "COMPLETED"
    assert "No example is left" in run["state"]["message"]


def test_late_runs_are_alerted(home, inbox):
    """With the worker hanging, people hear that runs are late; once it goes on they run."""
    worker = psutil.Process(Supervisor(home.world.state).processes()["worker"]["pid"])
    worker.suspend()
    run = home.start("prepare", "meters")
    assert wait_for(lambda: home.run(run)["state_name"] == "Late", 60)
    assert wait_for(lambda: any("Runs are late" in body.get("subject", "") for _, body in inbox[0].posts), 60)
    worker.resume()
    assert home.ended(run)["state_type"] == "COMPLETED"


def test_one_retrain_outlives_four_kills(home, terminal):
    """The flow, the worker, the server, then everything, in stages of seconds; test_kills.py has each in each stage."""
    outlives(home, terminal, "killed", zip(VICTIMS, ("features", "train", "evaluate", HALF_PROMOTED), strict=True))


def test_a_release_waits_for_a_person(home):
    """A deployed run is suspended after its verdict; with a person's word it goes on with what that person saw."""
    before = home.world.champion("asking")
    id_ = home.start("retrain", "asking", as_of=CHANGED, by="bo")
    assert wait_for(lambda: home.run(id_)["state_name"] == "Suspended", 120), home.run(id_)["state"]
    (approval,) = home.approvals("asking")
    assert (approval.state, approval.requested_by, approval.run) == ("waiting", "bo", id_)
    assert home.world.champion("asking") == before
    with home.store() as store:
        decide(store, "asking", Review(approval.evidence, True, "anna", "terminal", "looked at it"))
    assert home.ended(id_)["state_type"] == "COMPLETED"
    assert home.world.champion("asking") != before
    assert [(each.state, each.decided_by) for each in home.approvals("asking")] == [("approved", "anna")]


def test_a_person_starts_and_approves_a_release_in_the_ui(home):
    """In a real browser: open the deployment, fill the form, see it wait, approve, see it complete, its artifacts."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    browsers = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    before, earlier = home.world.champion("asking"), len(home.runs("release", "asking"))
    with browsers.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(home.ui)
        page.get_by_placeholder("admin:pass").fill(":".join(home.login))
        page.get_by_role("button", name="Login").click()
        page.goto(f"{home.ui}/deployments/deployment/{home.deployment('release', 'asking')}")
        page.get_by_role("button", name="Run", exact=True).first.click()
        page.get_by_text("Custom run").click()
        page.locator("textarea:visible").nth(1).fill("bo")
        page.get_by_role("button", name="Submit").click()
        assert wait_for(lambda: len(home.runs("release", "asking")) > earlier, 30)
        page.goto(f"{home.ui}/runs/flow-run/{home.runs('release', 'asking')[-1]['id']}")

        wait_for(lambda: home.runs("release", "asking")[-1]["state_name"] in ("Suspended", "Failed"), 120)
        assert home.runs("release", "asking")[-1]["state_name"] == "Suspended", home.runs("release", "asking")[-1]
        page.get_by_text("Suspended", exact=True).first.wait_for()
        page.get_by_role("button", name="Resume").first.click()
        form = page.get_by_role("dialog")
        form.get_by_text("champion_squared_error").first.wait_for()  # the evidence is on the form
        form.locator(".p-select-button").click()
        page.keyboard.press("ArrowDown")
        page.locator(".p-select-option:visible").filter(has_text="approve").click()
        form.locator("textarea").first.fill("ada")
        form.get_by_role("button", name="Submit").click()

        page.get_by_text("Completed", exact=True).first.wait_for(timeout=120_000)
        page.get_by_text("Artifacts", exact=True).first.click()
        page.get_by_text("asking-verdict").first.wait_for()
        browser.close()
    assert home.world.champion("asking") != before
    approval = home.approvals("asking")[0]
    assert (approval.state, approval.decided_by, approval.channel, approval.requested_by) == (
        "approved",
        "ada",
        "prefect",
        "bo",
    )


def test_a_guarded_server_lets_nobody_else_in(home, terminal, tmp_path):
    """Without its login nobody reaches the server, and is told why; one file alone has it, and no command line.

    `status` shows its owner a command that shows it.
    """
    for auth in (None, ("admin", "other")):
        assert httpx.get(f"{home.ui}/api/flows/", auth=auth, trust_env=False, verify=False).status_code == 401
    status = json.loads(terminal.run(home.world, "status --json").output)
    assert not status["unknown"]
    shown = subprocess.run(status["login"], shell=True, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == ":".join(home.login)
    assert status["login"] in terminal.run(home.world, "status").output
    for secret, found in (("admin:other", "another auth string"), ("", "no auth string")):
        variables = {**home.world.variables, "PREFECT_SERVER_API_AUTH_STRING": secret}
        stranger = World(tmp_path, home.world.cases, variables)
        done = terminal.run(stranger, "prepare meters")
        assert done.code == 5, done.output
        assert found in done.output
        done = terminal.run(stranger, "status")
        assert done.code == 0
        assert "demands another auth string" in done.output
    secret = home.login[1].encode()
    services = [each["pid"] for each in status["services"]]
    commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in services if pid)
    assert b"prefect" in commands
    assert secret not in commands
    written = [path for path in home.world.folder.rglob("*") if path.is_file()]
    assert [path for path in written if secret in path.read_bytes()] == [secret_file(home.world.state, LOGIN_SECRET)]


def test_what_has_no_case_any_more_is_no_deployment(home, terminal):
    """Deployed again without a case, its flows and triggers are gone from the server; the others stay."""
    shutil.rmtree(home.world.cases / "meters")
    done = terminal.run(home.world, "deploy")
    assert done.code == 0, done.output
    assert "removed retrain/meters" in done.output
    assert home.http.get("/deployments/name/retrain/meters").status_code == 404
    assert home.deployment("retrain", "killed")
    automations = home.http.post("/automations/filter", json={}).json()
    assert not [each["name"] for each in automations if "meters" in each["name"]]
