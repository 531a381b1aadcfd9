"""Where a deployed run finds its code; prefect.yaml names this as its pull step."""

from __future__ import annotations

import os

from tasks.foundation.settings import ROOT


def code_directory() -> dict[str, str]:
    """The folder of the commit that the run is of, or else this repository's."""
    return {"directory": os.environ.get("DRIFTLINE_CODE") or str(ROOT)}
