"""The stack left alone: drift retrains once, people hear of it and are asked, and whatever is killed goes on."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tasks.gateway.approvals import decide
from tasks.release.process import free_port
from tasks.serve.supervision import Supervisor
from tests.end_to_end.home import ENDED, Home, Told, listening
from tests.end_to_end.small import change_case, make_moving_case
from tests.end_to_end.terminal import Terminal, World
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("by_itself")

CASES = ("meters", "killed", "asking")
CHANGED = "2020-03-01T00:00:00Z"  # a month after the world has


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Told, str]]:
    with listening() as (told, channels):
        yield told, channels


@pytest.fixture(scope="module")
def home(tmp_path_factory, terminal: Terminal, told) -> Iterator[Home]:
    """A deployed stack, and three cases whose first champions were all made at once, which breaks nothing."""
    folder = tmp_path_factory.mktemp("home")
    ports = {f"DRIFTLINE_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "GATEWAY", "WORKER")}
    world = World(folder, folder / "cases", {"DRIFTLINE_PREFECT_URL": "", "DRIFTLINE_ALERTS": told[1], **ports})
    for case in CASES:
        make_moving_case(world.cases, case)
    done = terminal.run(world, "up", "deploy")
    assert done.code == 0, done.output
    made = Home(world)
    for run in [made.start("release", case) for case in CASES]:
        assert made.ended(run, 300)["state_type"] == "COMPLETED"
    assert {made.at_gateway(case) for case in CASES} == {world.champion(case) for case in CASES}
    change_case(world.cases / "asking", approval={"within": "1h"})
    yield made
    terminal.run(world, "down")
    made.kill_all()


def decision(home: Home, evidence: str) -> None:
    """The event of a monitor's decision, as if it came again."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "driftline.decision.retrain",
        "resource": {"prefect.resource.id": "driftline.case.meters", "driftline.evidence": evidence},
        "payload": {"as_of": CHANGED, "evidence": evidence},
    }
    home.http.post("/events", json=[event]).raise_for_status()


def test_a_drift_retrains_once_and_people_hear_of_it(home, told):
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

    heard = [path for path, body in told[0].posts if "meters: retrain" in json.dumps(body)]
    assert sorted(heard) == ["/hook", "/slack"]
    (mail,) = [mail for mail in told[0].mails if "meters: retrain" in mail]
    assert "- rmse is" in mail


def test_twenty_triggers_at_once_are_one_run(home):
    """One retrain of a case at a time; what comes meanwhile is cancelled, not queued."""
    made = [home.start("retrain", "asking", as_of="2020-02-01T12:00:00Z") for _ in range(20)]
    states = [home.ended(id_)["state_type"] for id_ in made]
    assert states.count("CANCELLED") == 19


def test_nothing_to_do_yet_is_no_failure(home):
    """A scheduled monitor that finds nothing asked of the champion ends well, and says so."""
    run = home.ended(home.start("monitor", "asking", as_of="2020-02-01T00:00:00Z"))
    assert run["state_type"] == "COMPLETED"
    assert "No example is left" in run["state"]["message"]


def test_what_should_have_run_and_did_not_is_told(home, told):
    """With the worker gone, people hear that runs are late; once it is back they run."""
    with Supervisor(home.world.state).calling() as supervisor:
        supervisor.stopProcess("worker")
        run = home.start("prepare", "meters")
        assert wait_for(lambda: home.run(run)["state_name"] == "Late", 60)
        assert wait_for(lambda: any("Runs are late" in body.get("subject", "") for _, body in told[0].posts), 60)
        supervisor.startProcess("worker")
    assert home.ended(run)["state_type"] == "COMPLETED"


def test_one_retrain_outlives_four_kills(home, terminal):
    """The flow, the worker, the server and then everything are killed at four steps: it ends, and was done once."""
    before = home.world.champion("killed")
    home.start("retrain", "killed", as_of=CHANGED)
    assert home.reached("retrain", "killed", "measure")
    home.kill_run("retrain", "killed")
    assert home.reached("retrain", "killed", "train a candidate"), home.runs("retrain", "killed")
    home.kill_program("worker")
    assert home.reached("retrain", "killed", "judge"), home.runs("retrain", "killed")
    home.kill_program("prefect")
    assert home.reached("retrain", "killed", "serve"), home.runs("retrain", "killed")
    home.kill_all()

    done = terminal.run(home.world, "up")
    assert done.code == 0, done.output
    assert wait_for(lambda: "COMPLETED" in home.states("retrain", "killed"), 180), home.runs("retrain", "killed")
    assert wait_for(lambda: set(home.states("retrain", "killed")) <= ENDED, 30), "no run stays for ever"
    assert home.states("retrain", "killed").count("COMPLETED") == 1
    after = home.world.champion("killed")
    assert after != before
    assert home.at_gateway("killed") == after, "registry and routes agree"


def test_a_release_waits_for_a_person(home):
    """A deployed run is suspended after its verdict; with a person's word it goes on with what that person saw."""
    before = home.world.champion("asking")
    id_ = home.start("retrain", "asking", as_of=CHANGED, by="bo")
    assert wait_for(lambda: home.run(id_)["state_name"] == "Suspended", 120), home.run(id_)["state"]
    (asked,) = home.approvals("asking")
    assert (asked.state, asked.asked_by, asked.run) == ("waiting", "bo", id_)
    assert home.world.champion("asking") == before
    with home.store() as store:
        decide(store, "asking", asked.evidence, True, "anna", "terminal", "looked at it")
    assert home.ended(id_)["state_type"] == "COMPLETED"
    assert home.world.champion("asking") != before
    assert [(each.state, each.who) for each in home.approvals("asking")] == [("approved", "anna")]


def test_a_person_starts_and_approves_a_release_in_the_ui(home):
    """In a real browser: open the deployment, fill the form, see it wait, approve, see it complete, its artifacts."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    browsers = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    ui = f"http://127.0.0.1:{home.world.variables['DRIFTLINE_PREFECT_PORT']}"
    before, earlier = home.world.champion("asking"), len(home.runs("release", "asking"))
    with browsers.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(f"{ui}/deployments/deployment/{home.deployment('release', 'asking')}")
        page.get_by_role("button", name="Run", exact=True).first.click()
        page.get_by_text("Custom run").click()
        page.locator("textarea:visible").nth(1).fill("bo")
        page.get_by_role("button", name="Submit").click()
        assert wait_for(lambda: len(home.runs("release", "asking")) > earlier, 30)
        page.goto(f"{ui}/runs/flow-run/{home.runs('release', 'asking')[-1]['id']}")

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
    said = home.approvals("asking")[0]
    assert (said.state, said.who, said.via, said.asked_by) == ("approved", "ada", "prefect", "bo")


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
