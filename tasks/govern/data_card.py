"""The data card of a snapshot in the vocabulary of Croissant 1.0 (MLCommons), as JSON-LD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.files import file_digest
from tasks.govern.evidence import Evidence

CONFORMS = "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "recordSet": "cr:recordSet",
    "source": "cr:source",
}
TYPES = {
    "int": "sc:Integer",
    "float": "sc:Float",
    "double": "sc:Float",
    "bool": "sc:Boolean",
    "timestamp": "sc:DateTime",
    "date": "sc:Date",
}


def data_card(evidence: Evidence, snapshot: Path | None) -> str:
    """The card; `snapshot` is the folder of the snapshot with SOURCE/BATCH.parquet, None when it is not at hand.

    The files and columns are then missing, and the card says so.
    """
    files = sorted(snapshot.rglob("*.parquet")) if snapshot else []
    card: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": evidence.case,
        "description": _description(evidence, bool(files)),
        "version": evidence.sealed["data"],
        "datePublished": evidence.recorded.get("created_at", ""),
        "temporalCoverage": f"../{evidence.sealed['as_of']}",
        "distribution": [_file(path, snapshot) for path in files if snapshot],
        "recordSet": [_records(path, snapshot) for path in _first_of_each(files) if snapshot],
        "rai:dataCollection": "see the sources in the case's configuration",
        "rai:dataBiases": _biases(evidence),
    }
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _description(evidence: Evidence, complete: bool) -> str:
    text = f"Training and evaluation data of the release {evidence.digest[:12]}: {evidence.recorded.get('data', '')}"
    checked = evidence.latest("data.validate")
    for name, source in (checked.details.get("sources", {}) if checked else {}).items():
        text += f". Source {name}: {source['rows']} rows, {source['quarantined']} quarantined, "
        text += f"{source['expectations']} expectations"
    return text if complete else f"{text}. The files of the snapshot are not at hand, so they are not listed"


def _file(path: Path, snapshot: Path) -> dict[str, Any]:
    name = path.relative_to(snapshot).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/vnd.apache.parquet",
        "sha256": file_digest(path),
    }


def _first_of_each(files: list[Path]) -> list[Path]:
    """A file of each source: all batches of a source have the same columns."""
    return list({path.parent: path for path in reversed(files)}.values())[::-1]


def _records(path: Path, snapshot: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    source, name = path.parent.name, path.relative_to(snapshot).as_posix()
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{source}/{column.name}",
            "name": column.name,
            "dataType": next((kind for part, kind in TYPES.items() if part in str(column.type)), "sc:Text"),
            "source": {"fileObject": {"@id": name}, "extract": {"column": column.name}},
        }
        for column in pq.read_schema(path)
    ]
    return {"@type": "cr:RecordSet", "@id": source, "name": source, "field": fields}


def _biases(evidence: Evidence) -> str:
    """Rows of each group in the hold-out, as far as groups were compared."""
    tables = evidence.recorded.get("metrics", {}).get("fairness", {})
    parts = [f"{column} {group}: {each['rows']} rows" for column in tables for group, each in tables[column].items()]
    return "; ".join(parts) or "no groups were compared: evaluate.fairness"
