"""Promise: a signature holds for one release and one key, and any other is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tasks.core.errors import DriftlineError, InputError
from tasks.release.seal import read_manifest, verify
from tasks.release.signature import SIGNATURE, check_signature, export_openssf, sign_release

KEY, OTHER = (b64encode(bytes([number]) * 32).decode() for number in (1, 2))


@pytest.fixture
def signed(tmp_path: Path, folder: Path) -> tuple[Path, str]:
    mine = Path(shutil.copytree(folder, tmp_path / folder.name))
    digest = read_manifest(mine)["digest"]
    sign_release(mine, digest, KEY)
    return mine, digest


def test_a_signed_release_verifies_and_is_still_intact(signed):
    folder, digest = signed
    public = check_signature(folder, digest).public_key
    assert check_signature(folder, digest, public).digest == digest
    assert verify(folder)["digest"] == digest


def test_another_key_digest_or_signature_is_refused(signed):
    """And a damaged file, and none at all."""
    folder, digest = signed
    path = folder / SIGNATURE
    good = json.loads(path.read_text())
    other = sign_release(folder, digest, OTHER).public_key
    path.write_text(json.dumps(good))
    with pytest.raises(DriftlineError, match="another key"):
        check_signature(folder, digest, other)
    with pytest.raises(DriftlineError, match="another release"):
        check_signature(folder, "0" * 64)
    for changed, message in (
        (good | {"public_key": other}, "does not match"),
        (good | {"signature": "AAAA"}, "does not match"),
        (good | {"more": 1}, "no signature"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(DriftlineError, match=message):
            check_signature(folder, digest)
    path.unlink()
    with pytest.raises(DriftlineError, match="no signature"):
        check_signature(folder, digest)


@pytest.mark.parametrize("key", ["", "short", "A" * 43, "ä" * 9])
def test_a_key_that_is_none_is_not_shown(tmp_path, key):
    with pytest.raises(InputError, match="openssl rand") as raised:
        sign_release(tmp_path, "0" * 64, key)
    assert not key or key not in str(raised.value)


def test_the_openssf_signature_verifies_with_its_own_tool(tmp_path, signed):
    """By the command line of model-signing; one changed byte is found."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder, _ = signed
    key = ec.generate_private_key(ec.SECP256R1())
    private, public, out = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "model.sig"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    export_openssf(folder, out, private)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature", str(out)]
    command += ["--public_key", str(public), "--ignore-paths", str(folder / SIGNATURE)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with (folder / "golden.json").open("a") as file:
        file.write(" ")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_key_of_another_kind_is_named(tmp_path, signed):
    (tmp_path / "key.pem").write_text("none")
    with pytest.raises(InputError, match="can't be written"):
        export_openssf(signed[0], tmp_path / "model.sig", tmp_path / "key.pem")
