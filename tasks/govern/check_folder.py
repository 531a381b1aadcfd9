"""Check a report folder without Driftline: python check.py [--release FOLDER] [--key PUBLIC]

It needs Python 3.9 or later, and nothing else. It checks the digest of every file, the digest of the release's
manifest, the chain of audit records, and the signature of the release. With --release it also checks the files of a
release's folder, with --key that this public key has signed. It ends with exit code 1 when something does not match.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from pathlib import Path

FIELD = 2**255 - 19  # of Ed25519, as RFC 8032 defines it
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE = -121665 * pow(121666, FIELD - 2, FIELD) % FIELD
ROOT_OF_MINUS_ONE = pow(2, (FIELD - 1) // 4, FIELD)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a report folder.")
    parser.add_argument("--release", type=Path, help="a release's folder, to check its files, too")
    parser.add_argument("--key", default="", help="the public key that must have signed the release, in base64")
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent
    try:
        check(folder, options.release, options.key)
    except (AssertionError, KeyError, OSError, TypeError, ValueError) as problem:
        print(f"WRONG: {problem}")
        return 1
    return 0


def check(folder: Path, release: Path | None, key: str) -> None:
    contents = read(folder / "contents.json")
    check_files(folder, contents["files"])
    print(f"{len(contents['files'])} files have the digests of contents.json")
    print(f"  whose own digest is {digest_of_file(folder / 'contents.json')}: the log of the platform has it")
    manifest = read(folder / "manifest.json")
    require(digest_of(manifest["sealed"]) == manifest["digest"], "manifest.json: the sealed part was changed")
    print(f"the manifest is that of release {manifest['digest']}")
    check_chain(folder / "audit.jsonl")
    check_signature(folder / "signature.json", manifest["digest"], key)
    if release:
        check_release(release, manifest)


def read(path: Path) -> dict:  # type: ignore[type-arg]
    return dict(json.loads(path.read_text(encoding="utf-8")))


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)


def digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_files(folder: Path, files: dict) -> None:  # type: ignore[type-arg]
    for name, digest in files.items():
        require((folder / name).is_file(), f"{name}: the file is gone")
        require(digest_of_file(folder / name) == digest, f"{name}: the file was changed")
    known = {*files, "contents.json"}
    more = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    more = [name for name in more if name not in known and "__pycache__" not in name]
    require(not more, f"{', '.join(more)}: not of this report")


def check_chain(path: Path) -> None:
    """Records of other cases stand there by their digests alone."""
    previous, number, own = "0" * 64, 0, 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            number += 1
            require(entry["id"] == number, f"audit.jsonl: record {number} is gone")
            if entry["record"] is not None:
                own += 1
                digest = hashlib.sha256(entry["record"].encode()).hexdigest()
                require(digest == entry["digest"], f"audit.jsonl: record {number} was edited")
                require(json.loads(entry["record"])["previous"] == previous, f"audit.jsonl: broken before {number}")
            previous = entry["digest"]
    print(f"{number} audit records are in order, {own} of them with their text; head {previous}")


def check_signature(path: Path, digest: str, key: str) -> None:
    if not path.is_file():
        require(not key, "signature.json: the release is not signed")
        print("the release is not signed")
        return
    signature = read(path)
    public = signature["public_key"]
    require(signature["digest"] == digest, "signature.json: it is of another release")
    require(not key or public == key, f"signature.json: signed by another key, {public}")
    valid = verify_ed25519(base64.b64decode(public), digest.encode(), base64.b64decode(signature["signature"]))
    require(valid, "signature.json: the signature does not match")
    print(f"the release is signed by {public}")


def check_release(folder: Path, manifest: dict) -> None:  # type: ignore[type-arg]
    for name, digest in manifest["sealed"]["files"].items():
        path = folder / name
        require(path.is_file(), f"{path}: the file is gone")
        found = digest_of(json.loads(path.read_text(encoding="utf-8"))) if name == "golden.json" else ""
        require((found or digest_of_file(path)) == digest, f"{path}: the file was changed")
    print(f"{len(manifest['sealed']['files'])} files of the release are as they were sealed")


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032, 5.1.7."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = decode(public), decode(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    y = 4 * pow(5, FIELD - 2, FIELD) % FIELD
    base = (recover(y, 0) or 0, y)
    return multiply(base, scalar) == add(commitment, multiply(key, challenge))


def decode(text: bytes) -> tuple[int, int] | None:
    number = int.from_bytes(text, "little")
    y, sign = number & (2**255 - 1), number >> 255
    x = recover(y, sign)
    return None if x is None else (x, y)


def recover(y: int, sign: int) -> int | None:
    if y >= FIELD:
        return None
    square = (y * y - 1) * pow(CURVE * y * y + 1, FIELD - 2, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * ROOT_OF_MINUS_ONE % FIELD
    if (x * x - square) % FIELD or (x == 0 and sign):
        return None
    return FIELD - x if x & 1 != sign else x


def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, two
    product = CURVE * x1 * x2 * y1 * y2 % FIELD
    x = (x1 * y2 + x2 * y1) * pow(1 + product, FIELD - 2, FIELD) % FIELD
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, FIELD - 2, FIELD) % FIELD


def multiply(point: tuple[int, int], scalar: int) -> tuple[int, int]:
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


if __name__ == "__main__":
    sys.exit(main())
