"""`driftline signature`: sign a release, verify it, and export its OpenSSF model signature."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Sign releases, and verify their signatures.")
ReleaseName = Annotated[str, typer.Argument(metavar="CASE[:DIGEST]", help="Default digest: the champion.")]


@app.command()
def create(release: ReleaseName) -> None:
    """Sign a release with the key of DRIFTLINE_SIGNING_KEY; new releases are signed when they are sealed."""
    from tasks.core.errors import InputError
    from tasks.core.settings import settings
    from tasks.release.signature import sign_release

    folder, manifest = _verified(release)
    if not settings().signing_key:
        raise InputError(
            "There is no key to sign with.",
            where="DRIFTLINE_SIGNING_KEY",
            todo="Set it in the environment or in .env. openssl rand -base64 32 creates one.",
        )
    signed = sign_release(folder, manifest["digest"], settings().signing_key)
    print(f"{signed.digest} signed by {signed.public_key}")


@app.command()
def verify(
    release: ReleaseName,
    key: Annotated[str, typer.Option(metavar="BASE64", help="The public key that must have signed it.")] = "",
) -> None:
    """Verify every digest of a release and its signature. Exit code 1 when one does not match."""
    from tasks.release.signature import check_signature

    folder, manifest = _verified(release)
    signed = check_signature(folder, manifest["digest"], key)
    files = len(manifest["sealed"]["files"])
    print(f"{signed.digest} is intact, {files} files; signed by {signed.public_key}")
    if not key:
        print("compare this key with the one that the signer has published, or name it: --key")


@app.command()
def export(
    release: ReleaseName,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The signature, such as model.sig.")],
    key: Annotated[Path, typer.Option(metavar="PEM", exists=True, help="An elliptic-curve private key.")],
) -> None:
    """Write the OpenSSF model signature of a release; `model_signing verify key` checks it."""
    from services.store.audit import record_audit_event
    from services.store.database import Store
    from tasks.core.settings import settings
    from tasks.release.signature import SIGNATURE, export_openssf

    folder, manifest = _verified(release)
    export_openssf(folder, out, key)
    case, what = manifest["sealed"]["case"], "OpenSSF model signature"
    with closing(Store(settings())) as store, store.writing() as connection:
        record_audit_event(connection, "evidence.export", manifest["digest"], case=case, what=what)
    command = f"model_signing verify key {folder} --signature {out} --public_key PUBLIC.pem"
    print(f"wrote {out}; verify it: {command} --ignore-paths {folder / SIGNATURE}")


def _verified(release: str) -> tuple[Path, dict[str, Any]]:
    from cli.show import find_release
    from tasks.release.seal import verify as verify_release

    case, _, digest = release.partition(":")
    folder = find_release(case, digest or None).folder
    return folder, verify_release(folder)
