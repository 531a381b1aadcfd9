"""The bill of materials of a release: CycloneDX 1.6 with its machine-learning model card, valid by its own schema.

cyclonedx-python-lib has no class for the model card, so the document is written as JSON, and validated with the schemas
that the library ships.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tasks.core.errors import DriftlineError
from tasks.govern.evidence import Evidence
from tasks.govern.limits import limits

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)
TASKS = {"classification": "classification", "regression": "regression"}


def sbom(evidence: Evidence, lock: str | None) -> str:
    """The document as JSON; `lock` is the text of the sealed lock file, None when it is not at hand.

    Raises: DriftlineError when the document does not match the schema of CycloneDX.
    """
    sealed, name = evidence.sealed, f"{evidence.case}:{evidence.digest[:12]}"
    packages = locked_packages(lock) if lock else _recorded(evidence.recorded.get("versions", {}))
    parts = [_data(evidence), *_base(sealed), *packages]
    document = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, f"driftline:{evidence.digest}").urn,
        "version": 1,
        "metadata": {
            "timestamp": evidence.recorded.get("created_at", "1970-01-01T00:00:00+00:00"),
            "component": {
                "type": "machine-learning-model",
                "bom-ref": name,
                "name": evidence.case,
                "version": evidence.digest[:12],
                "description": evidence.description,
                "hashes": [{"alg": "SHA-256", "content": evidence.digest}],
                "modelCard": _model_card(evidence),
                "properties": _properties(evidence, complete=lock is not None),
            },
        },
        "components": parts,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    check_sbom(text)
    return text


def check_sbom(text: str) -> None:
    """Raises: DriftlineError when a text is not a valid document of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise DriftlineError("The bill of materials does not match CycloneDX 1.6.", found=str(problem.data)[:400])


def locked_packages(lock: str) -> list[dict[str, Any]]:
    """A component for each pinned package of a lock file; the digests of its files stay in the lock."""
    return [_package(each["name"], each["version"]) for each in PINNED.finditer(lock)]


def _recorded(versions: Mapping[str, str]) -> list[dict[str, Any]]:
    return [_package(name, version) for name, version in versions.items()]


def _package(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    licence = _licence(name, version)
    return {**found, **({"licenses": [licence]} if licence else {})}


def _licence(name: str, version: str) -> dict[str, Any]:
    """As the installed package of this version states it; empty when another version is installed, or none."""
    from importlib.metadata import PackageNotFoundError, metadata

    from cyclonedx.spdx import is_supported_id

    try:
        stated = metadata(name)
    except PackageNotFoundError:
        return {}
    text = next((stated[field] for field in ("License-Expression", "License") if field in stated), "")
    if stated["Version"] != version or not text or "\n" in text:
        return {}
    return {"license": {"id": text} if is_supported_id(text) else {"name": text}}


def _data(evidence: Evidence) -> dict[str, Any]:
    """The snapshot: DVC's MD5 over its files."""
    return {
        "type": "data",
        "bom-ref": f"data:{evidence.sealed['data']}",
        "name": f"snapshot of {evidence.case}",
        "version": evidence.sealed["data"][:12],
        "data": [{"type": "dataset", "name": evidence.case, "description": evidence.recorded.get("data", "")}],
    }


def _base(sealed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The base of a language model."""
    if not (base := sealed.get("base")):
        return []
    digest = str(base["digest"])
    hashes = {"hashes": [{"alg": "SHA-256", "content": digest}]} if re.fullmatch("[0-9a-f]{64}", digest) else {}
    found = {"type": "machine-learning-model", "bom-ref": f"base:{digest[:12]}", "name": str(base["source"])}
    return [{**found, "version": digest[:12], **hashes}]


def _model_card(evidence: Evidence) -> dict[str, Any]:
    """CycloneDX's part for models."""
    sealed, metrics = evidence.sealed, evidence.recorded.get("metrics", {})
    task = TASKS.get(sealed.get("target", {}).get("task", ""), "text generation")
    measured = [
        {"type": name, "value": f"{value:.6g}"}
        for name, value in metrics.get("overall", {}).items()
        if isinstance(value, int | float)
    ]
    for column, values in metrics.get("by_slice", {}).items():
        for value, each in values.items():
            measured += [
                {"type": name, "value": f"{number:.6g}", "slice": f"{column}: {value}"}
                for name, number in each.items()
                if isinstance(number, int | float) and name != "rows"
            ]
    approach = {"approach": {"type": "supervised"}} if sealed["kind"] == "tabular" else {}
    columns = [{"format": f"{column['name']}: {column.get('kind', 'any')}"} for column in sealed.get("columns", [])]
    return {
        "modelParameters": {
            **approach,
            "task": task,
            "datasets": [{"ref": f"data:{sealed['data']}"}],
            **({"inputs": columns} if columns else {}),
            "outputs": [{"format": sealed["target"]["column"] if "target" in sealed else "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": measured},
        "considerations": {
            "useCases": [evidence.description],
            "technicalLimitations": limits(evidence),
            "fairnessAssessments": _fairness(metrics.get("fairness", {})),
        },
    }


def _fairness(tables: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for column, groups in tables.items():
        for group, each in groups.items():
            rates = ", ".join(f"{name} {value:.4g}" for name, value in each.items() if isinstance(value, float))
            found.append({"groupAtRisk": f"{column}: {group}", "harms": rates or "unknown: too few rows"})
    return found


def _properties(evidence: Evidence, *, complete: bool) -> list[dict[str, str]]:
    values = {name: str(evidence.sealed[name]) for name in ("commit", "lock", "config", "weights", "as_of")}
    values["packages"] = "all of the sealed lock" if complete else "those recorded; the sealed lock is not at hand"
    if evidence.energy_wh is not None:
        values["training energy in Wh"] = f"{evidence.energy_wh:.6g}"
    return [{"name": f"driftline:{name}", "value": value} for name, value in values.items()]
