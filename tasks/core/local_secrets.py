"""Secrets that this installation generates: one file each, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SECRETS_FOLDER = "secrets"  # within the state folder
OPERATOR = "operator"  # the gateway key of the installation's owner


def local_secret(state: Path, name: str) -> str:
    """Return the secret of this name, created at the first call; concurrent processes get the same one.

    state: the state folder. name: for example `prefect`. Returns 43 URL-safe characters (256 random bits).
    """
    path = secret_file(state, name)
    if (existing := read_secret(state, name)) is not None:
        return existing
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32))
    try:
        os.link(temporary, path)  # fails if another process was first; its secret is used
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text(encoding="ascii")


def read_secret(state: Path, name: str) -> str | None:
    """Return the secret of this name, or None before it was created."""
    try:
        return secret_file(state, name).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def secret_file(state: Path, name: str) -> Path:
    """The path of a secret's file."""
    return state / SECRETS_FOLDER / name
