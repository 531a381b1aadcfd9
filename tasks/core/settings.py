"""The platform's settings: `configs/platform.yaml`, overridden by `.env` and `DRIFTLINE_*` variables."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from tasks.core.config import Duration
from tasks.core.errors import CaseError
from tasks.core.hosts import parse_host_names
from tasks.core.local_secrets import local_secret, read_secret
from tasks.core.mlflow import Tracking
from tasks.core.permissions import make_private, require_private, use_private_umask
from tasks.core.places import Places

ROOT = Path(__file__).resolve().parents[2]
ASYNCPG = "postgresql+asyncpg://"
LOGIN_SECRET, LOGIN_USER = "prefect", "driftline"  # of the login at the local servers
AUTH_STRINGS = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")  # of the server, and of its clients
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class Settings(BaseSettings):
    """The settings of one process. Relative paths start at the repository; they become absolute."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="DRIFTLINE_", env_ignore_empty=True)

    state: Path = Field(Path(".driftline"), description="Folder for all state; git ignores it.")
    data: Path = Field(Path("data"), description="Folder for raw batches, pinned snapshots and predictions.")
    cases: Path = Field(Path("configs"), description="Folder with one folder per case.")
    threads: int = Field(2, ge=1, le=256, description="Threads per training or scoring process.")
    host: str = Field("127.0.0.1", description="Address that local servers bind to.")
    allowed_hosts: str = Field(
        "", description="Additional host names that clients may use for the gateway, Prefect and MLflow."
    )
    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of the local Prefect server.")
    prefect_url: str = Field("", description="URL of an external Prefect server; empty: the local one.")
    worker: bool = Field(
        True, description="Whether the local stack runs deployed flows; false: it only serves releases."
    )
    worker_port: int = Field(8401, ge=1, le=65535, description="Port of the worker's health check.")
    prefect_database: str = Field("", description="Database URL of the local Prefect server; empty: SQLite.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of the local MLflow server.")
    tracking_url: str = Field("", description="MLflow tracking URI; empty: SQLite in the state folder.")
    artifacts_url: str = Field("", description="MLflow artifact root; empty: a folder in the state folder.")
    dvc_remote: str = Field("", description="DVC remote for snapshots, for example s3://...; empty: a local folder.")
    vllm_url: str = Field("", description="URL of the vLLM server for cases with `engine: vllm`, without /v1.")
    online_store: str = Field("", description="redis://host:port for Feast's online store; empty: SQLite.")
    git_branch: str = Field("main", description="Branch whose pushes start runs; pushed tags also do.")
    gateway_port: int = Field(8400, ge=1, le=65535, description="Port of the gateway.")
    gateway_workers: int = Field(1, ge=1, le=64, description="Gateway processes that share the port.")
    gateway_store: str = Field("", description="Database URL of the gateway's store; empty: SQLite.")
    gateway_limits: str = Field(
        "", description="redis://host:port for shared rate limits; empty: each process counts its own requests."
    )
    gateway_log: Literal["full", "masked", "none"] = Field(
        "masked",
        description="Texts in request log and feedback: full, masked (without personal data and secrets) or none.",
    )
    gateway_traces: float = Field(
        0.01, ge=0, le=1, description="Share of the requests that monitoring writes to MLflow as traces."
    )
    alerts: str = Field(
        "", description="URLs that receive alerts, separated by spaces; they contain secrets, so set them in .env."
    )
    alerts_every: Duration = Field(
        timedelta(hours=6), description="Interval in which each cause sends at most one alert."
    )
    guardrails: dict[str, Any] = Field(
        {},
        description="Rules that hold in every case, in the form of a case's guardrails; a case can only add to them.",
    )
    signing_key: str = Field(
        "",
        repr=False,
        description="Ed25519 private key that signs releases, 32 bytes in base64; a secret, so set it in .env.",
    )
    openlineage_url: str = Field(
        "",
        description="URL of an OpenLineage server that also receives the events of runs; empty: only files in the "
        "state folder.",
    )
    anchor_file: str = Field("", description="File that driftline audit anchor appends to; empty: its argument.")
    anchor_git: str = Field(
        "", description="Git repository whose notes (refs/notes/driftline-audit) also receive anchors; empty: none."
    )
    anchor_tsa: str = Field("", description="URL of an RFC 3161 server that stamps the time of anchors; empty: none.")
    anchor_roots: str = Field("", description="PEM file with the root certificates of that server, to verify stamps.")
    gateway_warm: int = Field(
        1, ge=0, le=20, description="Number of earlier champions per case that stay running, for rollbacks."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, ROOT / "configs" / "platform.yaml")

    def model_post_init(self, _: object) -> None:
        for name in ("state", "data", "cases"):
            object.__setattr__(self, name, (ROOT / getattr(self, name).expanduser()).resolve())

    @property
    def mlflow_uri(self) -> str:
        return self.tracking_url or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> str:
        return self.artifacts_url or (self.state / "mlflow").as_uri()

    @property
    def tracking(self) -> Tracking:
        """The tracking URI and the artifact root of MLflow."""
        return Tracking(self.mlflow_uri, self.mlflow_artifacts)

    @property
    def places(self) -> Places:
        """The folders and the tracking server that the stages use."""
        return Places(self.state, self.tracking, self.data)

    @property
    def prefect_api(self) -> str:
        return self.prefect_url or f"http://{self.host}:{self.prefect_port}/api"

    @property
    def login(self) -> str:
        """`user:password` of the local Prefect and MLflow servers; empty before the first `up`.

        It is the user's own auth string, or else the secret of this state folder.
        """
        own = _auth_string(*AUTH_STRINGS[: 1 if self.prefect_url else 2])
        if own:
            return own
        secret = read_secret(self.state, LOGIN_SECRET)
        return f"{LOGIN_USER}:{secret}" if secret else ""

    @property
    def prefect_auth(self) -> str:
        """The auth string for Prefect's server; empty: none. An external server never gets the local login."""
        return _auth_string(*AUTH_STRINGS) if self.prefect_url else self.login

    @property
    def prefect_headers(self) -> dict[str, str]:
        """The headers of each request to Prefect's server."""
        auth = self.prefect_auth
        return {"authorization": f"Basic {b64encode(auth.encode()).decode()}"} if auth else {}

    @property
    def host_names(self) -> frozenset[str]:
        """The host names and addresses that clients may use for the local servers."""
        return frozenset((*LOOPBACK_NAMES, self.host)) | parse_host_names(self.allowed_hosts)

    @property
    def private_folders(self) -> list[Path]:
        """The folders that only their owner may enter; the rest of the data folder is in git."""
        data = [self.data / name for name in ("raw", "predictions")]
        return [self.state, *(folder for folder in data if folder.is_dir())]

    @property
    def variables(self) -> dict[str, str]:
        """Variables that give a child process the same settings; an empty one hides the parent's."""
        values = self.model_dump(mode="json")
        return {
            f"DRIFTLINE_{name.upper()}": json.dumps(values[name])
            if isinstance(values[name], dict)
            else str(values[name])
            for name in type(self).model_fields
        }

    @property
    def gateway(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def remote(self) -> str:
        return self.dvc_remote or str(self.state / "remote")


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises: CaseError naming each wrong value and where it came from.
    """
    read_dotenv(ROOT / ".env")
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (found {e['input']!r})" for e in error.errors()]
        raise CaseError(
            "The platform settings are not valid.",
            where="configs/platform.yaml, DRIFTLINE_* variables or .env",
            found="; ".join(lines),
            allowed=", ".join(Settings.model_fields),
            todo="Correct the named settings.",
        ) from error


def read_dotenv(path: Path) -> None:
    """Add the variables of a .env file to the environment, unless they are set.

    `${NAME}` in a value is not expanded: a password may contain it. Raises: CaseError when other users can read it.
    """
    if path.is_file():
        from dotenv import load_dotenv

        require_private(path)
        load_dotenv(path, override=False, interpolate=False, encoding="utf-8")


def environment(of: Settings) -> dict[str, str]:
    """Variables for the packages: state in this state folder, no telemetry, and few threads.

    They contain secrets: they are passed from process to process and written to no file.
    """
    threads = str(of.threads)
    secrets = {
        # Prefect's server supports only asyncpg for Postgres
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": re.sub(r"^postgres\w*(\+\w+)?://", ASYNCPG, of.prefect_database),
        # the login of the local server is also that of its clients
        AUTH_STRINGS[0]: "" if of.prefect_url else of.login,
        AUTH_STRINGS[1]: of.prefect_auth,
    }
    return {
        **{name: value for name, value in secrets.items() if value},
        "OMP_NUM_THREADS": threads,
        # how long waiting threads spin. Without spinning, a fit on idle cores takes twice as long; with the default,
        # a fit on busy cores takes five times as long
        "GOMP_SPINCOUNT": "2000",
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "DRIFTLINE_SPILL": str(of.state / "scratch"),  # of DuckDB, for data that does not fit into memory
        "PREFECT_HOME": str(of.state / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": of.prefect_api.removesuffix(
            "/api"
        ),  # by default every web page may read it
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; a run without heartbeats is marked as crashed
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": of.mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_HOME": str(of.state / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "GX_ANALYTICS_ENABLED": "False",
        "FEAST_USAGE": "False",
        "FEAST_TELEMETRY": "False",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
        "DRIFTLINE_VLLM_URL": of.vllm_url,  # for releases, which read no settings
    }


def _auth_string(*names: str) -> str:
    """The first of these variables that is not empty."""
    return next(filter(None, map(os.environ.get, names)), "")


def create_login(of: Settings) -> str:
    """The login of the local servers; the first call creates its secret."""
    if not of.login:
        local_secret(of.state, LOGIN_SECRET)
    return of.login


def apply_environment(of: Settings) -> None:
    """Set the variables of `environment` in this process, unless they are set. Entry points call it before imports.

    Files that the process writes afterwards are private.
    """
    use_private_umask()
    for folder in of.private_folders:
        make_private(folder)
    (of.state / "prefect").mkdir(
        parents=True, exist_ok=True
    )  # without the folder, Prefect's server ends without an error
    for name in AUTH_STRINGS:
        if not os.environ.get(name):
            os.environ.pop(name, None)  # for Prefect, an empty one means no password
    for name, value in environment(of).items():
        os.environ.setdefault(name, value)
