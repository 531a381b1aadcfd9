"""Events of a case in Prefect's form, for flows and for code that must not import Prefect."""

from __future__ import annotations

from typing import Any

from tasks.core.display import without_links


def case_event(name: str, case: str, payload: dict[str, Any], **labels: str) -> dict[str, Any]:
    """An event of a case; automations match its labels."""
    resource = {"prefect.resource.id": f"driftline.case.{case}", "prefect.resource.name": case}
    resource |= {f"driftline.{label}": value for label, value in labels.items()}
    return {"event": f"driftline.{name}", "resource": resource, "payload": payload}


def alert_event(case: str, cause: str, subject: str, body: str) -> dict[str, Any]:
    """An alert, rate-limited for each cause; its texts contain no link and no mention."""
    return case_event(
        "alert", case, {"subject": without_links(subject), "body": without_links(body)}, cause=f"{case} {cause}"
    )
