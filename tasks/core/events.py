"""Events of a case in the form that Prefect's server takes, for flows and for what knows no Prefect."""

from __future__ import annotations

from typing import Any

from tasks.core.display import without_links


def case_event(name: str, case: str, payload: dict[str, Any], **labels: str) -> dict[str, Any]:
    """What happened to a case; automations match the labels."""
    resource = {"prefect.resource.id": f"driftline.case.{case}", "prefect.resource.name": case}
    resource |= {f"driftline.{label}": value for label, value in labels.items()}
    return {"event": f"driftline.{name}", "resource": resource, "payload": payload}


def alert_event(case: str, cause: str, subject: str, body: str) -> dict[str, Any]:
    """What people are told, at most once in a while for the same cause; nothing in it is a link or a mention."""
    return case_event(
        "alert", case, {"subject": without_links(subject), "body": without_links(body)}, cause=f"{case} {cause}"
    )
