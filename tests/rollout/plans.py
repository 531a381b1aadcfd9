"""A plan whose steps are decided after few calls."""

from __future__ import annotations

from services.rollout.config import Plan

PLAN = Plan.model_validate({"steps": [{"percent": 10, "requests": 10}], "disliked": 0.3})
