"""Anchors: heads of the audit chain outside the database, in a file, as a git note, each with a time stamp or without.

A time stamp (RFC 3161) is the signed statement of an authority that this head existed at this time.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from services.store.audit_verify import Head
from tasks.core.errors import InputError, Unavailable
from tasks.core.settings import Settings

NOTES = "driftline-audit"  # refs/notes/driftline-audit
TIMEOUT = 20.0  # seconds
ANCHORS = "lines that driftline audit anchor wrote"


def write_anchors(head: Head, settings: Settings, file: Path | None = None) -> list[str]:
    """Anchor the head in each configured place, and in `file`; returns the places.

    Raises: InputError when there is no place, or one can't be written; Unavailable when no time stamp can be had.
    """
    file = file or (Path(settings.anchor_file).expanduser() if settings.anchor_file else None)
    if file is None and not settings.anchor_git:
        raise InputError(
            "No place for an anchor is named.",
            where="driftline audit anchor",
            allowed="a file as argument; DRIFTLINE_ANCHOR_FILE; DRIFTLINE_ANCHOR_GIT, a git repository",
            todo="Name one that those who can change the database can't change.",
        )
    stamped = head.model_copy(update={"at": datetime.now(UTC)})
    if settings.anchor_tsa:
        stamped = stamped.model_copy(update={"stamp": request_stamp(head, settings.anchor_tsa)})
    places = []
    if file is not None:
        write_anchor(stamped, file)
        places.append(str(file))
    if settings.anchor_git:
        commit = write_note(stamped, Path(settings.anchor_git).expanduser())
        places.append(f"git note on {commit[:12]}")
    return places


def read_all_anchors(settings: Settings, file: Path | None = None) -> tuple[Head, ...]:
    """The heads in the file, or in the configured one, and in the git notes, with valid time stamps.

    Raises: InputError when one can't be read, or has a time stamp that is not of it.
    """
    file = file or (Path(settings.anchor_file).expanduser() if settings.anchor_file else None)
    heads = read_anchors(file) if file else ()
    if settings.anchor_git:
        heads += read_notes(Path(settings.anchor_git).expanduser())
    for head in heads:
        if head.stamp:
            check_stamp(head, settings.anchor_roots)
    return heads


def write_anchor(head: Head, path: Path) -> None:
    """Append the head to a file, one line a head; the file belongs where those who can change the database can't."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(head.model_dump_json(exclude_defaults=True) + "\n")
    except OSError as error:
        raise InputError("The anchor can't be written.", where=str(path), found=str(error)) from error


def read_anchors(path: Path) -> tuple[Head, ...]:
    """The heads in a file. Raises: InputError when it can't be read, or a line is no anchor."""
    try:
        return _heads(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(str(path), str(error)) from error


def write_note(head: Head, repository: Path) -> str:
    """Append the head to the note of the repository's present commit, and return the commit. Raises: InputError."""
    identity = ["-c", "user.name=driftline", "-c", "user.email=driftline@localhost"]
    line = head.model_dump_json(exclude_defaults=True)
    _git(repository, *identity, "notes", "--ref", NOTES, "append", "--message", line, "HEAD")
    return _git(repository, "rev-parse", "HEAD").strip()


def read_notes(repository: Path) -> tuple[Head, ...]:
    """The heads in all notes. Raises: InputError."""
    _git(repository, "rev-parse", "--git-dir")
    listed = _git(repository, "notes", "--ref", NOTES, "list").split()
    texts = [_git(repository, "cat-file", "blob", blob) for blob in listed[::2]]
    return tuple(head for text in texts for head in _heads(text, f"{repository}, refs/notes/{NOTES}"))


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    except (OSError, subprocess.SubprocessError) as error:
        found = getattr(error, "stderr", "") or str(error)
        raise InputError(
            "The repository of the anchors can't be used.",
            where=f"DRIFTLINE_ANCHOR_GIT, {repository}",
            found=found.strip().splitlines()[-1],
            allowed="a git repository with a commit",
        ) from error


def _heads(text: str, where: str) -> tuple[Head, ...]:
    try:
        return tuple(Head.model_validate_json(line) for line in text.splitlines() if line.strip())
    except ValidationError as error:
        raise _unreadable(where, str(error).splitlines()[0]) from error


def _unreadable(where: str, found: str) -> InputError:
    return InputError("The anchors can't be read.", where=where, found=found, allowed=ANCHORS)


def _message(head: Head) -> bytes:
    return f"driftline audit record {head.id} {head.digest}".encode()


def request_stamp(head: Head, url: str) -> str:
    """A time stamp of the head, in base64. Raises: Unavailable."""
    import httpx
    from rfc3161_client import TimestampRequestBuilder, decode_timestamp_response

    request = TimestampRequestBuilder().data(_message(head)).cert_request(cert_request=True).build()
    headers = {"content-type": "application/timestamp-query"}
    try:
        response = httpx.post(url, content=request.as_bytes(), headers=headers, timeout=TIMEOUT)
        response.raise_for_status()
        stamp = decode_timestamp_response(response.content)
        if stamp.status not in (0, 1) or stamp.tst_info.nonce != request.nonce:
            raise ValueError(f"status {stamp.status}, {', '.join(stamp.status_string) or 'another request'}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(
            "The server gives no time stamp.",
            where=f"DRIFTLINE_ANCHOR_TSA, {url}",
            found=str(error),
            allowed="an RFC 3161 server",
            todo="Start the command again when it answers, or remove the setting.",
        ) from error
    return base64.b64encode(response.content).decode()


def check_stamp(head: Head, roots: str) -> datetime:
    """When the head existed, by its time stamp. Raises: InputError when it is not of this head, or of another root."""
    from cryptography.x509 import load_pem_x509_certificates
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    where = f"anchor of record {head.id}"
    try:
        certificates = load_pem_x509_certificates(Path(roots).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            "The certificates of the time stamp server can't be read.",
            where=f"DRIFTLINE_ANCHOR_ROOTS, {roots or 'not set'}",
            found=str(error).splitlines()[0],
            allowed="a PEM file with the root certificates of the server",
        ) from error
    try:
        stamp = decode_timestamp_response(base64.b64decode(head.stamp, validate=True))
        builder = VerifierBuilder()
        for certificate in certificates:
            builder = builder.add_root_certificate(certificate)
        builder.build().verify_message(stamp, _message(head))
    except (VerificationError, ValueError, binascii.Error) as error:
        raise InputError(
            "A time stamp is not of its anchor: the anchors were changed.",
            where=where,
            found=str(error).splitlines()[0],
            todo="Compare with another copy of the anchors.",
        ) from error
    return stamp.tst_info.gen_time
