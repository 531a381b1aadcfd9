"""What MLflow is told of a candidate: values, the dataset, pictures, and a model that its own tools can load."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.features.results import Frame
from tasks.train.candidates import CandidateBuilder
from tasks.train.tabular.model_file import ALLOWED, Model
from tasks.train.tabular.scoring import block_of

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy")


def log_frame(making: CandidateBuilder, run_id: str, frame: Frame) -> None:
    """Name the frame that was trained on."""
    columns = [{"type": _type(c.kind), "name": c.name, "required": False} for c in frame.columns]
    schema = {"mlflow_colspec": columns} if len(columns) < 500 else None
    profile = {"num_rows": frame.rows, "num_features": len(columns)}
    making.log_dataset(run_id, profile, schema)


def log_model(
    making: CandidateBuilder, run_id: str, model: Model, file: Path, example: pd.DataFrame, work: Path
) -> None:
    """Log the model file, as it is, as a model of MLflow's scikit-learn flavour.

    mlflow.sklearn.log_model would serialise it again, with other bytes, and infer its requirements for ten seconds.
    """
    folder = work / "model"
    folder.mkdir()
    os.link(file, folder / "model.skops")
    with making.logged_model(run_id, folder) as made:
        _write_description(folder, made.artifact_location, made.model_id, run_id, model, example)


def _write_description(
    folder: Path, location: str, model_id: str, run_id: str, model: Model, example: pd.DataFrame
) -> None:
    import numpy as np
    from mlflow.models import Model as Description
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs = Schema([ColSpec(_type(c.kind), c.name, required=False) for c in model.columns])
    shape = (-1, len(model.classes)) if model.classifies else (-1,)
    described = Description(
        artifact_path=location,
        run_id=run_id,
        model_uuid=model_id,
        model_id=model_id,
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
        skops_trusted_types=list(ALLOWED),
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
    """What reading and running the model needs, as pinned requirements."""
    return [f"{name}=={version(name)}" for name in PACKAGES]


def _example(model: Model, frame: pd.DataFrame) -> dict[str, Any]:
    columns = [block_of(frame, [column], len(frame))[:, 0].tolist() for column in model.columns]
    rows = [[None if value != value else value for value in row] for row in zip(*columns, strict=True)]
    return {"columns": [column.name for column in model.columns], "data": rows}


def _type(kind: str) -> str:
    return "double" if kind == "number" else "string"
