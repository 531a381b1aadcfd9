"""What reaches people: Prefect's automations send what flows, gateway and server tell, once for a cause in its time.

An automation fires for the first event of a cause and not again within DRIFTLINE_ALERTS_EVERY: Prefect's own counting.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from services.runtime.prefect_api import TAG
from tasks.core.config import digest_of
from tasks.core.errors import CaseError
from tasks.core.settings import Settings

if TYPE_CHECKING:
    from prefect.automations import AutomationCore
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient

NAME = "driftline: "
TOLD = "{{ event.payload.body }}"
RUN = "{{ flow_run|ui_url }}"


def set_up_alerts(client: SyncPrefectClient, settings: Settings) -> int:
    """Make channels and automations what the settings say, and give the number of channels.

    Raises: CaseError for a channel that is no URL of a kind that there is.
    """
    urls = enumerate(settings.alerts.split(), 1)
    channels = [channel(url).save(f"driftline-alerts-{number}", overwrite=True) for number, url in urls]
    wanted = {made.name: made for made in _automations(channels, settings.alerts_every)}
    for name, made in wanted.items():
        _save_automation(client, name, made)
    for old in client.read_automations():
        if old.name.startswith(NAME) and old.name not in wanted:
            client.delete_automation(old.id)
    return len(channels)


def channel(url: str) -> NotificationBlock:
    """The block that sends to a URL: http(s) gets JSON with subject and body, slack+https the form that Slack takes,
    and anything else is Apprise's, mailto:// among it.

    Raises: CaseError for what Apprise doesn't know either.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from flows.deployed.channel import AppriseChannel

    if url.startswith(("http://", "https://")):
        told = {"subject": "{{subject}}", "body": "{{body}}"}
        return CustomWebhookNotificationBlock(name="driftline", url=url, json_data=told)
    if url.startswith(("slack+http://", "slack+https://")):
        text = {"text": "*{{subject}}*\n{{body}}"}
        return CustomWebhookNotificationBlock(name="driftline", url=url.removeprefix("slack+"), json_data=text)
    from apprise import Apprise

    if url.startswith("mailto") and "format=" not in url:
        url += f"{'&' if '?' in url else '?'}format=text"  # as HTML, all lines would become one
    if not Apprise.instantiate(url):
        scheme = url.partition("://")[0] + "://..." if "://" in url else "no URL"  # the rest may be a password
        raise CaseError(
            "An alert channel is not known.",
            where="DRIFTLINE_ALERTS",
            found=scheme,
            allowed="https://..., slack+https://..., mailto://USER:PASSWORD@HOST?to=..., or another Apprise URL",
        )
    return AppriseChannel(url=url)


def _automations(channels: list[Any], every: timedelta) -> list[AutomationCore]:
    from prefect.events.actions import ChangeFlowRunState, SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification
    from prefect.settings import get_current_settings
    from prefect.states import StateType

    runs = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
    ours = ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})
    deployed = ResourceSpecification({"prefect.resource.role": "deployment"})

    def of_deployed(**more: Any) -> EventTrigger:
        return EventTrigger(match=runs, match_related=[ours, deployed], **more)

    def telling(name: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
        send = [SendNotification(block_document_id=each, subject=subject, body=body) for each in channels]
        return AutomationCore(name=NAME + name, trigger=trigger, actions=send)

    names = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
    ends = {f"prefect.flow-run.{name}" for name in names}
    beat = get_current_settings().flows.heartbeat_frequency or 30
    beats = EventTrigger(  # of runs from a terminal, too, and of those killed before their first beat
        match=runs,
        match_related=ours,
        after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *ends},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=timedelta(seconds=3 * beat),
        threshold=1,
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="Its heart has stopped: its process is gone.")
    found = [AutomationCore(name=f"{NAME}runs without a heartbeat have crashed", trigger=beats, actions=[crash])]
    if not channels:
        return found
    said = EventTrigger(expect={"driftline.alert"}, for_each={"driftline.cause"}, threshold=1, within=every)
    failed = of_deployed(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        for_each={"related:deployment:prefect.resource.id"},
        threshold=1,
        within=every,
    )
    # not for each deployment: when the worker is gone all of them are late, for one cause
    late = of_deployed(expect={"prefect.flow-run.Late"}, threshold=1, within=every)
    ended = "{{ flow_run.name }}: {{ flow_run.state.name }}"
    why = "{{ flow_run.state.message or '' }}"
    return [
        *found,
        telling("what flows and the gateway tell", said, "{{ event.payload.subject }}", TOLD),
        telling("runs that failed", failed, ended, f"{why}\n{RUN}"),
        telling("runs that are late", late, "Runs are late: {{ flow_run.name }}, perhaps others", RUN),
    ]


def _save_automation(client: SyncPrefectClient, name: str, made: AutomationCore) -> None:
    """Make or change an automation; one that is as it should be keeps what it has counted."""
    digest = digest_of(made.model_dump(mode="json", exclude={"trigger": {"id"}}))[:12]
    made = made.model_copy(update={"description": f"Made by driftline deploy ({digest})."})
    for old in client.read_automations_by_name(name):
        if digest in old.description:
            return
        client.delete_automation(old.id)
    client.create_automation(made)
