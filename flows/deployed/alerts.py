"""Alerts: Prefect's automations that notify people of events of flows, gateway and server, once for each cause.

An automation fires for the first event of a cause, and not again within DRIFTLINE_ALERTS_EVERY.
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
EVENT_BODY = "{{ event.payload.body }}"
RUN_URL = "{{ flow_run|ui_url }}"


def set_up_alerts(client: SyncPrefectClient, settings: Settings) -> int:
    """Create or change channels and automations as the settings require; returns the number of channels.

    Raises: CaseError for a channel whose URL has an unknown form.
    """
    urls = enumerate(settings.alerts.split(), 1)
    channels = [channel(url).save(f"driftline-alerts-{number}", overwrite=True) for number, url in urls]
    automations = _automations(channels, settings.alerts_every)
    for automation in automations:
        _save_automation(client, automation)
    names = {automation.name for automation in automations}
    for old in client.read_automations():
        if old.name.startswith(NAME) and old.name not in names:
            client.delete_automation(old.id)
    return len(channels)


def channel(url: str) -> NotificationBlock:
    """The block that sends to a URL: JSON with subject and body to http(s), Slack's JSON to slack+https, and anything
    else through Apprise, for instance mailto://.

    Raises: CaseError for a URL that Apprise does not know.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from flows.deployed.channel import AppriseChannel

    if url.startswith(("http://", "https://")):
        message = {"subject": "{{subject}}", "body": "{{body}}"}
        return CustomWebhookNotificationBlock(name="driftline", url=url, json_data=message)
    if url.startswith(("slack+http://", "slack+https://")):
        text = {"text": "*{{subject}}*\n{{body}}"}
        return CustomWebhookNotificationBlock(name="driftline", url=url.removeprefix("slack+"), json_data=text)
    from apprise import Apprise

    if url.startswith("mailto") and "format=" not in url:
        url += f"{'&' if '?' in url else '?'}format=text"  # HTML would join all lines
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
    tagged = ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"})
    deployed = ResourceSpecification({"prefect.resource.role": "deployment"})

    def deployed_run(**more: Any) -> EventTrigger:
        return EventTrigger(match=runs, match_related=[tagged, deployed], **more)

    def notify(name: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
        send = [SendNotification(block_document_id=each, subject=subject, body=body) for each in channels]
        return AutomationCore(name=NAME + name, trigger=trigger, actions=send)

    names = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "Paused", "Suspended")
    ends = {f"prefect.flow-run.{name}" for name in names}
    beat = get_current_settings().flows.heartbeat_frequency or 30
    beats = EventTrigger(  # also for runs from a terminal, and for those killed before their first heartbeat
        match=runs,
        match_related=tagged,
        after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *ends},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=timedelta(seconds=3 * beat),
        threshold=1,
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: its process is gone.")
    crashes = [AutomationCore(name=f"{NAME}runs without a heartbeat have crashed", trigger=beats, actions=[crash])]
    if not channels:
        return crashes
    alerts = EventTrigger(expect={"driftline.alert"}, for_each={"driftline.cause"}, threshold=1, within=every)
    failed = deployed_run(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        for_each={"related:deployment:prefect.resource.id"},
        threshold=1,
        within=every,
    )
    # not for each deployment: when the worker is gone, all of them are late for one cause
    late = deployed_run(expect={"prefect.flow-run.Late"}, threshold=1, within=every)
    ended = "{{ flow_run.name }}: {{ flow_run.state.name }}"
    message = "{{ flow_run.state.message or '' }}"
    return [
        *crashes,
        notify("alerts of flows and the gateway", alerts, "{{ event.payload.subject }}", EVENT_BODY),
        notify("runs that failed", failed, ended, f"{message}\n{RUN_URL}"),
        notify("runs that are late", late, "Runs are late: {{ flow_run.name }}, perhaps others", RUN_URL),
    ]


def _save_automation(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create or change an automation; an unchanged one keeps its counts."""
    digest = digest_of(automation.model_dump(mode="json", exclude={"trigger": {"id"}}))[:12]
    automation = automation.model_copy(update={"description": f"Created by driftline deploy ({digest})."})
    for old in client.read_automations_by_name(automation.name):
        if digest in old.description:
            return
        client.delete_automation(old.id)
    client.create_automation(automation)
