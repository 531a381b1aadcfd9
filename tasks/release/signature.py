"""Signatures of releases: Ed25519 over the digest, in a file beside the manifest; and OpenSSF model signatures."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.core.config import Result
from tasks.core.errors import DriftlineError, InputError
from tasks.core.files import write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature.json"
KEY_BYTES = 32


class Signature(Result):
    """A signature over the release's digest, as 64 ASCII digits. Keys and signature are in base64."""

    algorithm: str
    digest: str
    public_key: str
    signature: str


def sign_release(folder: Path, digest: str, key: str) -> Signature:
    """Sign a release with a private key, once for each key; the file is no part of the sealed release.

    Raises: InputError when the key is none.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = private_key(key)
    public = b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    signature = b64encode(private.sign(digest.encode("ascii"))).decode()
    signed = Signature(algorithm="Ed25519", digest=digest, public_key=public, signature=signature)
    path = folder / SIGNATURE
    text = signed.model_dump_json(indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return signed


def private_key(text: str) -> Ed25519PrivateKey:
    """The key of a setting. Raises: InputError, which does not show the value."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        return Ed25519PrivateKey.from_private_bytes(b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError) as error:
        raise InputError(
            "The signing key is not valid.",
            where="DRIFTLINE_SIGNING_KEY",
            found=f"{len(text.strip())} characters",
            allowed=f"{KEY_BYTES} random bytes in base64",
            todo="Create one: openssl rand -base64 32",
        ) from error


def read_signature(folder: Path) -> Signature | None:
    """The signature of a release; None when it has none. Raises: DriftlineError when the file is damaged."""
    path = folder / SIGNATURE
    if not path.is_file():
        return None
    try:
        return Signature.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _wrong(path, "no signature: " + str(error).splitlines()[0]) from error


def check_signature(folder: Path, digest: str, public_key: str = "") -> Signature:
    """The signature, verified against the release's digest and, if one is named, a public key.

    Raises: DriftlineError when there is none, or it does not match.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signed, path = read_signature(folder), folder / SIGNATURE
    if signed is None:
        raise _wrong(path, "no signature")
    if signed.digest != digest:
        raise _wrong(path, f"the signature of another release, {signed.digest[:12]}")
    if public_key and signed.public_key != public_key.strip():
        raise _wrong(path, f"the signature of another key, {signed.public_key}")
    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(signed.public_key, validate=True))
        key.verify(b64decode(signed.signature, validate=True), digest.encode("ascii"))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise _wrong(path, "a signature that does not match the digest") from error
    return signed


def _wrong(path: Path, found: str) -> DriftlineError:
    return DriftlineError(
        "The release has no valid signature.",
        where=str(path),
        found=found,
        allowed="an Ed25519 signature over the release's digest",
        todo="Sign it with DRIFTLINE_SIGNING_KEY set: driftline signature create CASE",
    )


def export_openssf(folder: Path, out: Path, key: Path) -> None:
    """Write the OpenSSF model signature of a release's folder, by an elliptic-curve private key in a PEM file.

    Raises: InputError when the extra `signing` is not installed, or the key can't be used.
    """
    try:
        import model_signing.hashing
        import model_signing.signing
    except ImportError as error:
        raise InputError(
            "OpenSSF model signatures need a package that is not installed.",
            found=str(error),
            todo='Install it: pip install "driftline[signing]"',
        ) from error
    ignored = [folder / SIGNATURE]
    package: Any = model_signing  # its classes have no annotations
    config = package.signing.Config()
    config.set_hashing_config(package.hashing.Config().set_ignored_paths(paths=ignored))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        config.use_elliptic_key_signer(private_key=key).sign(folder, out)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "The model signature can't be written.",
            where=str(key),
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            allowed="an elliptic-curve private key in a PEM file, and a file to write",
            todo="Create a key: openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        ) from error
