"""Settings: what the environment says."""

from __future__ import annotations

from tasks.core.settings import ROOT, Settings


def test_an_empty_variable_is_as_if_not_set(monkeypatch):
    """DRIFTLINE_STATE= in a shell must not make the repository the state folder."""
    monkeypatch.setenv("DRIFTLINE_STATE", "")
    monkeypatch.setenv("DRIFTLINE_THREADS", "")
    assert Settings().state == ROOT / ".driftline"


def test_a_child_process_reads_the_same_settings(monkeypatch, tmp_path):
    """Every setting reaches children, also one that its code was given and the environment says otherwise."""
    monkeypatch.setenv("DRIFTLINE_GATEWAY_WARM", "3")
    monkeypatch.setenv("DRIFTLINE_ONLINE_STORE", "redis://elsewhere:6379")
    config = Settings(
        state=tmp_path, threads=7, worker=False, alerts_every="90m", gateway_traces=0.5, gateway_warm=1, online_store=""
    )
    for name, value in config.variables.items():
        monkeypatch.setenv(name, value)
    assert Settings() == config
    assert len(config.variables) == len(Settings.model_fields)
