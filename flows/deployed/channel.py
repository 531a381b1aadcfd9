"""A Prefect block that sends to any URL Apprise knows, such as mailto://; pyproject.toml registers it at the server."""

from __future__ import annotations

from prefect.blocks.notifications import AppriseNotificationBlock


class AppriseChannel(AppriseNotificationBlock):
    """Sends a notification to an Apprise URL: mailto://, msteams://, pagerduty:// and a hundred others."""

    _block_type_name = "Apprise URL"
    _block_type_slug = "driftline-apprise"
