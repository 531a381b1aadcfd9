"""Settings: what the environment says."""

from __future__ import annotations

from tasks.foundation.settings import ROOT, Settings


def test_an_empty_variable_is_as_if_not_set(monkeypatch):
    """DRIFTLINE_STATE= in a shell must not make the repository the state folder."""
    monkeypatch.setenv("DRIFTLINE_STATE", "")
    monkeypatch.setenv("DRIFTLINE_THREADS", "")
    assert Settings().state == ROOT / ".driftline"
