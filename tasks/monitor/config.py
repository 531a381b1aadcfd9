"""The part of a case that says what is done when its world changes."""

from __future__ import annotations

from pydantic import Field

from tasks.evaluate.config import Metric
from tasks.foundation.config import Section


class Retrain(Section):
    """Any of these, on the newest window with enough outcomes, decides: retrain."""

    metric: Metric = Field(description="The metric watched.")
    worse_by: float = Field(gt=0, description="How much worse than on the release's hold-out.")
    bias: float | None = Field(None, gt=0, description="Largest |mean prediction - mean outcome|.")


class Alert(Section):
    """Any of these decides: alert. Drift of columns never retrains by itself."""

    drifted_share: float = Field(0.5, gt=0, le=1, description="Share of drifted feature columns.")
    prediction_drift: float = Field(0.1, gt=0, description="Distance of the predictions' distribution (Jensen-Shannon).")
    importance_shift: float = Field(0.5, gt=0, le=2, description="Sum of changes in normalised feature importance.")


class Monitor(Section):
    retrain: Retrain
    alert: Alert = Alert()
    min_rows: int = Field(500, ge=30, description="Fewer rows with an outcome are insufficient evidence.")
    sample: int = Field(5000, ge=500, description="Rows of each side that drift is measured on.")
