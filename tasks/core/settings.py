"""Where things live: `configs/platform.yaml`, overridden by `DRIFTLINE_*` variables and `.env`."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Literal

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
    """One process's view of the platform. Paths are absolute once read; relative ones count from the repository."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="DRIFTLINE_", env_ignore_empty=True)

    state: Path = Field(Path(".driftline"), description="Folder for all state that git ignores.")
    data: Path = Field(Path("data"), description="Folder for raw batches, pinned snapshots and predictions.")
    cases: Path = Field(Path("configs"), description="Folder with one folder a case.")
    threads: int = Field(2, ge=1, le=256, description="Threads of one training or scoring process.")
    host: str = Field("127.0.0.1", description="Address that local servers bind to.")
    allowed_hosts: str = Field(
        "", description="Host names by which gateway, Prefect and MLflow may be reached besides this machine's own."
    )
    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of the local Prefect server.")
    prefect_url: str = Field("", description="URL of a Prefect server elsewhere; empty: the local one.")
    worker: bool = Field(True, description="Whether the local stack runs deployed flows; false: it only serves.")
    worker_port: int = Field(8401, ge=1, le=65535, description="Port where the worker tells that it lives.")
    prefect_database: str = Field("", description="Database URL of the local Prefect server; empty: SQLite.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of the local MLflow server.")
    tracking_url: str = Field("", description="MLflow tracking URI; empty: SQLite in the state folder.")
    artifacts_url: str = Field("", description="MLflow artifact root; empty: a folder in the state folder.")
    dvc_remote: str = Field("", description="DVC remote for snapshots, for example s3://...; empty: a local folder.")
    vllm_url: str = Field("", description="URL of the vLLM server for cases with `engine: vllm`, without /v1.")
    online_store: str = Field("", description="redis://host:port for Feast's online store; empty: SQLite.")
    git_branch: str = Field("main", description="Branch whose pushes start runs; tags do too.")
    gateway_port: int = Field(8400, ge=1, le=65535, description="Port of the gateway.")
    gateway_workers: int = Field(1, ge=1, le=64, description="Gateway processes that share the port.")
    gateway_store: str = Field("", description="Database URL of routes, keys and ledger; empty: SQLite.")
    gateway_limits: str = Field("", description="redis://host:port for rate limits; empty: each process counts alone.")
    gateway_log: Literal["full", "masked", "none"] = Field(
        "masked", description="What log and feedback keep of texts; masked: without personal data and secrets."
    )
    gateway_traces: float = Field(
        0.01, ge=0, le=1, description="Share of the calls that monitoring shows in MLflow as traces."
    )
    alerts: str = Field("", description="URLs that alerts go to, with blanks between; they hold secrets.")
    alerts_every: Duration = Field(timedelta(hours=6), description="At most one alert of the same cause in this time.")
    gateway_warm: int = Field(1, ge=0, le=20, description="Earlier champions of a case kept running, to roll back to.")

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
        """Where MLflow keeps its tables and files."""
        return Tracking(self.mlflow_uri, self.mlflow_artifacts)

    @property
    def places(self) -> Places:
        """What the stages need to know of the platform."""
        return Places(self.state, self.tracking, self.data)

    @property
    def prefect_api(self) -> str:
        return self.prefect_url or f"http://{self.host}:{self.prefect_port}/api"

    @property
    def login(self) -> str:
        """`user:password` of the local Prefect and MLflow servers; empty before the first `up`.

        The user's own auth string, or else the secret of this state folder.
        """
        own = _auth_string(*AUTH_STRINGS[: 1 if self.prefect_url else 2])
        if own:
            return own
        secret = read_secret(self.state, LOGIN_SECRET)
        return f"{LOGIN_USER}:{secret}" if secret else ""

    @property
    def prefect_auth(self) -> str:
        """The auth string for Prefect's server. Our own login never goes to a server elsewhere; empty: none."""
        return _auth_string(*AUTH_STRINGS) if self.prefect_url else self.login

    @property
    def prefect_headers(self) -> dict[str, str]:
        """What to send with each request to Prefect's server: the auth string, if there is one."""
        auth = self.prefect_auth
        return {"authorization": f"Basic {b64encode(auth.encode()).decode()}"} if auth else {}

    @property
    def host_names(self) -> frozenset[str]:
        """The names and addresses by which the local servers may be reached."""
        return frozenset((*LOOPBACK_NAMES, self.host)) | parse_host_names(self.allowed_hosts)

    @property
    def private_folders(self) -> list[Path]:
        """The folders that nobody else may enter; what lies beside them in the data folder is in git."""
        data = [self.data / name for name in ("raw", "predictions")]
        return [self.state, *(folder for folder in data if folder.is_dir())]

    @property
    def variables(self) -> dict[str, str]:
        """The variables from which a child process reads the same settings; an empty one hides that of the parent."""
        values = self.model_dump(mode="json")
        return {f"DRIFTLINE_{name.upper()}": str(values[name]) for name in type(self).model_fields}

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
    """Put what a .env file sets into the environment, unless it is set there already.

    `${NAME}` within a value stays as it is: a password may hold one. Raises: CaseError when others can read the file.
    """
    if path.is_file():
        from dotenv import load_dotenv

        require_private(path)
        load_dotenv(path, override=False, interpolate=False, encoding="utf-8")


def environment(of: Settings) -> dict[str, str]:
    """The variables that make our packages keep their state in our folder, stay silent, and share the cores.

    Secrets are among them: they go from process to process, and into no file.
    """
    threads = str(of.threads)
    secrets = {
        # Prefect's server speaks to Postgres by asyncpg alone
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": re.sub(r"^postgres\w*(\+\w+)?://", ASYNCPG, of.prefect_database),
        # what our server demands is what its clients send
        AUTH_STRINGS[0]: "" if of.prefect_url else of.login,
        AUTH_STRINGS[1]: of.prefect_auth,
    }
    return {
        **{name: value for name, value in secrets.items() if value},
        "OMP_NUM_THREADS": threads,
        # how long threads spin while they wait: never, and a fit on idle cores takes twice as long; as long as they
        # would, and one on busy cores takes 5 times as long
        "GOMP_SPINCOUNT": "2000",
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "DRIFTLINE_SPILL": str(of.state / "scratch"),  # of DuckDB, for what does not fit into memory
        "PREFECT_HOME": str(of.state / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": of.prefect_api.removesuffix("/api"),  # by default all may read it
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; what stops beating is found out
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
        "DRIFTLINE_VLLM_URL": of.vllm_url,  # for the services, which read no settings
    }


def _auth_string(*names: str) -> str:
    """The first of these variables that is set."""
    return next(filter(None, map(os.environ.get, names)), "")


def create_login(of: Settings) -> str:
    """The login of the local servers; its secret is created at the first call."""
    if not of.login:
        local_secret(of.state, LOGIN_SECRET)
    return of.login


def apply_environment(of: Settings) -> None:
    """Set those variables in this process; what the user set already stays. Entry points call it, before imports.

    From then on, the process writes for its owner alone.
    """
    use_private_umask()
    for folder in of.private_folders:
        make_private(folder)
    (of.state / "prefect").mkdir(parents=True, exist_ok=True)  # without its folder, Prefect's server dies silently
    for name in AUTH_STRINGS:
        if not os.environ.get(name):
            os.environ.pop(name, None)  # an empty one is as if not set, and not a server without a password
    for name, value in environment(of).items():
        os.environ.setdefault(name, value)
