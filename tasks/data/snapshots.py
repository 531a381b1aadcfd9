"""Snapshots in DVC: a separate repository in the state folder, so that a run never changes the git work tree."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import digest_of
from tasks.core.errors import DataError, Unavailable
from tasks.core.files import atomic_path, file_digest, lock, write_text
from tasks.core.permissions import make_all_private, write_shared
from tasks.core.progress import mark_cached
from tasks.data.results import Snapshot, ValidatedBatches

if TYPE_CHECKING:
    from dvc.repo import Repo

REMOTE = "driftline"


def store_snapshot(
    case: str, as_of: datetime, validated: Sequence[ValidatedBatches], *, store: Path, remote: str
) -> Snapshot:
    """Link validated batches in one folder, add it to DVC and push it.

    The folder is named by a digest of its contents, so an equal snapshot is stored once; a file beside it records the
    remote. Raises: Unavailable when the push fails.
    """
    batches = {each.source: each.files for each in validated}
    key = digest_of({source: {name: file_digest(p) for name, p in files.items()} for source, files in batches.items()})
    folder = store / "snapshots" / case / key[:16]
    pointer_file, pushed, done = folder.with_suffix(".dvc"), folder.with_suffix(".pushed"), cache_key(__name__, remote)
    if all(path.exists() for path in (folder, pointer_file, pushed)) and pushed.read_text(encoding="utf-8") == done:
        mark_cached()
    else:
        _add_and_push(folder, batches, store, remote)
        write_text(pushed, done)
    return Snapshot(
        case=case,
        as_of=as_of,
        digest=_digest(pointer_file),
        path=folder,
        rows={each.source: each.rows for each in validated},
        quarantined={each.source: each.quarantined for each in validated},
        quarantined_by_batch={each.source: each.quarantined_by_batch for each in validated},
        docs={each.source: each.validation.docs for each in validated if each.validation.docs},
    )


def restore_snapshot(case: str, as_of: datetime, text: str, *, store: Path, remote: str) -> Snapshot:
    """Pull a snapshot from the remote into a store that may be empty, by the text of its pointer.

    Raises: DataError when the text is no pointer; Unavailable when the remote lacks the data.
    """
    out = _pointed(text, case)
    folder = store / "snapshots" / case / Path(str(out["path"])).name
    pointer_file = write_text(folder.with_suffix(".dvc"), text)
    if not _matches_pointer(folder):
        with (
            lock(store.parent / "locks" / "dvc", "The snapshot store", wait=True),
            _repository(store, remote) as repo,
        ):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                repo.pull([str(pointer_file)])
            except Exception as error:
                raise Unavailable(
                    "The data of a snapshot can't be pulled.",
                    where=f"DVC remote {remote}",
                    found=str(error).split("\n")[0],
                    allowed=str(out["md5"]),
                    todo="Restore the remote from a backup, or name the one that has it: DRIFTLINE_DVC_REMOTE",
                ) from error
    restored = Snapshot(
        case=case, as_of=as_of, digest=str(out["md5"]), path=folder, rows=_rows(folder), quarantined={}, docs={}
    )
    check_snapshot(restored)
    return restored


def _rows(folder: Path) -> dict[str, int]:
    """By source."""
    import pyarrow.parquet as pq

    sources = sorted(path for path in folder.iterdir() if path.is_dir())
    return {each.name: sum(pq.read_metadata(path).num_rows for path in each.glob("*.parquet")) for each in sources}


def _add_and_push(folder: Path, batches: dict[str, dict[str, Path]], store: Path, remote: str) -> None:
    with (
        lock(store.parent / "locks" / "dvc", "The snapshot store", wait=True),  # DVC breaks under concurrent writers
        _repository(store, remote) as repo,
    ):
        if not _matches_pointer(folder):
            _remove_damaged(folder, repo)
            with atomic_path(folder) as temporary:
                for source, files in batches.items():
                    (temporary / source).mkdir(parents=True)
                    for name, path in files.items():
                        os.link(path, temporary / source / f"{name}.parquet")
            repo.add(str(folder))
        try:
            repo.push([str(folder)])
        except Exception as error:
            raise Unavailable(
                "The snapshot could not be pushed; it is stored locally.",
                where=f"DVC remote {remote}",
                found=f"{type(error).__name__}: {error}",
                todo="Check the remote (DRIFTLINE_DVC_REMOTE) and its credentials, and start again.",
            ) from error


def check_snapshot(snapshot: Snapshot) -> None:
    """Check every byte of a snapshot against its digest, before a stage reads it.

    Raises: DataError when a file was damaged, lost or added.
    """
    if is_intact(snapshot):
        return
    snapshot.path.with_suffix(".pushed").unlink(missing_ok=True)  # so that it is stored again
    raise DataError(
        "The snapshot has changed since it was stored: a file was damaged, lost or added.",
        where=str(snapshot.path),
        found=content_digest(snapshot.path) if snapshot.path.is_dir() else "no such folder",
        allowed=snapshot.digest,
        todo=f"Run driftline prepare {snapshot.case} --as-of {snapshot.as_of.isoformat()} to store the snapshot again.",
    )


def is_intact(snapshot: Snapshot) -> bool:
    """Whether no byte has changed since the snapshot was stored."""
    return snapshot.path.is_dir() and content_digest(snapshot.path) == snapshot.digest


def content_digest(folder: Path) -> str:
    """DVC's hash of a folder, from its files alone: MD5 over the list of their paths and MD5s."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    listed = [{"md5": _md5(path), "relpath": name} for name, path in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _matches_pointer(folder: Path) -> bool:
    pointer_file = folder.with_suffix(".dvc")
    return pointer_file.is_file() and folder.is_dir() and content_digest(folder) == _digest(pointer_file)


def _remove_damaged(folder: Path, repo: Repo) -> None:
    """Remove an incomplete or damaged snapshot, and damaged files in DVC's cache."""
    if folder.with_suffix(".dvc").is_file():
        for cached in Path(repo.cache.local.path).glob("files/md5/??/*"):
            if _md5(cached) != (cached.parent.name + cached.name).removesuffix(".dir"):
                cached.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".dvc").unlink(missing_ok=True)


def remove_snapshots(folders: Sequence[Path], store: Path, remote: str) -> int:
    """Delete snapshots with the files that only they have, in DVC's cache and in the remote; returns how many files.

    Raises: Unavailable when the remote does not answer; then the folders stay, and it can be called again.
    """
    leaving = {_md5(path) for folder in folders for path in folder.rglob("*") if path.is_file()}
    staying = {
        _md5(path)
        for pointer_file in (store / "snapshots").glob("*/*.dvc")
        if (folder := pointer_file.with_suffix("")) not in folders
        for path in folder.rglob("*")
        if path.is_file()
    }
    names = leaving - staying | {_digest(each.with_suffix(".dvc")) for each in folders}
    with lock(store.parent / "locks" / "dvc", "The snapshot store", wait=True), _repository(store, remote) as repo:
        try:
            for place in (repo.cache.local, repo.cloud.get_remote_odb(REMOTE)):
                for name in names:
                    path = place.oid_to_path(name)
                    if place.fs.exists(path):
                        place.fs.remove(path)
        except Exception as error:
            raise Unavailable(
                "A snapshot can't be deleted.",
                where=f"DVC remote {remote}",
                found=f"{type(error).__name__}: {error}",
                todo="Check the remote (DRIFTLINE_DVC_REMOTE) and its credentials, and start again.",
            ) from error
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        for end in (".pushed", ".md", ".dvc"):
            folder.with_name(folder.name + end).unlink(missing_ok=True)
    return len(names)


def fetch_data(files: Sequence[str], tree: Path, repository: Path) -> None:
    """Pull the data of these files' DVC pointers into a checkout, with the repository's cache and remote.

    Raises: Unavailable when the remote does not have it.
    """
    pointers = [f"{name}.dvc" for name in files if (tree / f"{name}.dvc").is_file() and not (tree / name).exists()]
    if not pointers:
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo(str(repository)) as repo:
            config = {name: repo.config[name] for name in ("core", "remote")}
            config["cache"] = {**repo.config["cache"], "dir": repo.cache.local.path}
        with Repo(str(tree), config=config) as checkout:
            checkout.pull([str(tree / name) for name in pointers])
    except DvcException as error:
        raise Unavailable(
            "The data of a commit's DVC pointers is not available.",
            where=", ".join(pointers),
            found=str(error).split("\n")[0],
            todo="Run dvc push on the machine where it was added.",
        ) from error


def pointer(snapshot: Path) -> str:
    """The text of a snapshot's .dvc file."""
    return snapshot.with_suffix(".dvc").read_text(encoding="utf-8")


def pin(case: str, text: str, data: Path) -> Path:
    """Write a snapshot's pointer as `data`/snapshots/CASE.dvc, for git; `dvc pull` then restores the snapshot.

    Raises: DataError when the text is not a DVC pointer.
    """
    import yaml

    out = _pointed(text, case)
    pinned = {"outs": [{**out, "path": case}]}
    return write_shared(data / "snapshots" / f"{case}.dvc", yaml.safe_dump(pinned, sort_keys=False))


def _pointed(text: str, case: str) -> dict[str, Any]:
    """What the text of a DVC pointer states. Raises: DataError when it is none."""
    import yaml

    out: dict[str, Any] = (yaml.safe_load(text) or {}).get("outs", [{}])[0]
    if not {"md5", "size", "nfiles", "path"} <= set(out):
        raise DataError("The release has no snapshot pointer.", where=f"case {case}", found=text[:80])
    return out


def _digest(pointer_file: Path) -> str:
    import yaml

    return str(yaml.safe_load(pointer_file.read_text(encoding="utf-8"))["outs"][0]["md5"])


@contextlib.contextmanager
def _repository(store: Path, remote: str) -> Iterator[Repo]:
    """The store's DVC repository, created on first use."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    if not (store / ".dvc" / "config").is_file():
        store.mkdir(parents=True, exist_ok=True)
        Repo.init(str(store), no_scm=True, force=True).close()
    write_text(
        store / ".dvc" / "config",
        "[core]\n    no_scm = True\n    analytics = false\n    autostage = false\n"
        f'    site_cache_dir = "{store / ".dvc" / "site"}"\n'  # else in /var/tmp, outside the state folder
        f'    remote = {REMOTE}\n[\'remote "{REMOTE}"\']\n    url = "{remote}"\n'  # bare, a comma makes a list
        '[cache]\n    type = "reflink,hardlink,copy"\n',
    )
    with Repo(str(store)) as repo, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library that DVC uses
        yield repo
    make_all_private(store / ".dvc" / "site")  # DVC makes it readable by everybody
