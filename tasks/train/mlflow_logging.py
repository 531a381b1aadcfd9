"""Log a tabular candidate to MLflow: its dataset, and a model that MLflow's own tools can load."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.features.results import Frame
from tasks.train.candidates import CandidateBuilder
from tasks.train.compat import TRUSTED_TYPES
from tasks.train.tabular.model_file import Model
from tasks.train.tabular.scoring import column_block

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel

PACKAGES = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")


def log_frame(builder: CandidateBuilder, run_id: str, frame: Frame) -> None:
    """Log the training frame."""
    columns = [{"type": _type(c.kind), "name": c.name, "required": False} for c in frame.columns]
    schema = {"mlflow_colspec": columns} if len(columns) < 500 else None
    profile = {"num_rows": frame.rows, "num_features": len(columns)}
    builder.log_dataset(run_id, profile, schema)


def log_model(
    builder: CandidateBuilder, run_id: str, model: Model, file: Path, *, example: pd.DataFrame, work: Path
) -> None:
    """Log the model file, as it is, as a model of MLflow's scikit-learn flavour.

    mlflow.sklearn.log_model would serialise it again, with other bytes, and infer its requirements for ten seconds.
    """
    folder = work / "model"
    folder.mkdir()
    os.link(file, folder / "model.skops")
    with builder.logged_model(run_id, folder) as logged:
        _write_description(folder, logged, run_id, model, example)


def _write_description(folder: Path, logged: LoggedModel, run_id: str, model: Model, example: pd.DataFrame) -> None:
    """Write MLmodel, the requirements and the input example."""
    import numpy as np
    from mlflow.models import Model as Description
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs = Schema([ColSpec(_type(c.kind), c.name, required=False) for c in model.columns])
    shape = (-1, len(model.classes)) if model.classifies else (-1,)
    described = Description(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        signature=ModelSignature(inputs, Schema([TensorSpec(np.dtype("float64"), shape)])),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
        },
    )
    described.add_flavor(
        "python_function",
        loader_module="mlflow.sklearn",
        model_path="model.skops",
        predict_fn="predict_proba" if model.classifies else "predict",
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    described.add_flavor(
        "sklearn",
        pickled_model="model.skops",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        sklearn_version=version("scikit-learn"),
        code=None,
    )
    described.model_size_bytes = (folder / "model.skops").stat().st_size
    split = _example(model, example)
    files: dict[str, Any] = {
        "input_example.json": split,
        "serving_input_example.json": {"dataframe_split": split},
        "python_env.yaml": {
            "python": platform.python_version(),
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        },
        "conda.yaml": {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements()}],
        },
    }
    for name, content in files.items():  # JSON is YAML
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    described.save(str(folder / "MLmodel"))


def requirements() -> list[str]:
    """The packages that loading and running the model needs, pinned."""
    return [f"{name}=={version(name)}" for name in PACKAGES]


def _example(model: Model, frame: pd.DataFrame) -> dict[str, Any]:
    columns = [column_block(frame, [column], len(frame))[:, 0].tolist() for column in model.columns]
    rows = [[None if value != value else value for value in row] for row in zip(*columns, strict=True)]
    return {"columns": [column.name for column in model.columns], "data": rows}


def _type(kind: str) -> str:
    return "double" if kind == "number" else "string"
