"""The peers of the benchmark of searches, AutoGluon and FLAML, each in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GRACE = 600  # seconds over its budget, loading and predicting included, after which a peer is killed
SCRIPT = """
import json, sys, time
from pathlib import Path
import pandas as pd

folder = Path(sys.argv[1])
spec = json.loads((folder / "spec.json").read_text())
train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
tuning = pd.read_parquet(folder / "tuning.parquet") if (folder / "tuning.parquet").is_file() else None
columns = [name for name in train if name != "target"]
is_regression, classes = spec["task"] == "regression", sorted(train["target"].unique().tolist())

if spec["peer"] == "autogluon":
    from autogluon.tabular import TabularPredictor, __version__ as version
    metric = "r2" if is_regression else "roc_auc" if len(classes) == 2 else "log_loss"
    start = time.perf_counter()
    kind = "regression" if is_regression else None
    model = TabularPredictor("target", kind, metric, str(folder / "models"), verbosity=0)
    model.fit(train, tuning, presets="medium_quality", time_limit=spec["seconds"], num_cpus=spec["threads"], num_gpus=0)
    fitted = time.perf_counter() - start
    answer = model.predict if is_regression else lambda rows: model.predict_proba(rows)[classes]
    chosen = model.model_best
else:
    from flaml import AutoML, __version__ as version
    kinds = {name: pd.CategoricalDtype(sorted(train[name].dropna().unique())) for name in columns
             if train[name].dtype == object}
    train, test = train.astype(kinds), test.astype(kinds)
    metric = "r2" if is_regression else "roc_auc" if len(classes) == 2 else "log_loss"
    start = time.perf_counter()
    model = AutoML()
    model.fit(train[columns], train["target"], task=spec["task"], metric=metric, time_budget=spec["seconds"],
              n_jobs=spec["threads"], verbose=0, seed=0)
    fitted = time.perf_counter() - start
    answer = model.predict if is_regression else model.predict_proba
    chosen = model.best_estimator

predictions = pd.DataFrame(answer(test[columns]))
predictions.columns = [str(name) for name in predictions]
predictions.to_parquet(folder / "predictions.parquet")
alone = []
for at in range(min(50, len(test))):
    row = test[columns].iloc[[at]]
    start = time.perf_counter()
    answer(row)
    alone.append(time.perf_counter() - start)
result = {"seconds": fitted, "ms_per_row": 1000 * sorted(alone)[len(alone) // 2], "version": version, "chosen": chosen}
(folder / "result.json").write_text(json.dumps(result))
"""


class PeerFailed(Exception):
    """A peer ended without predictions; the message has the end of its output."""


@dataclass(frozen=True)
class Peer:
    """A peer, and the virtual environment that has it."""

    name: str  # autogluon or flaml
    environment: Path


@dataclass(frozen=True)
class Systems:
    """Who searches beside the platform, and for how many seconds each."""

    peers: tuple[Peer, ...]
    table_seconds: float
    flights_seconds: float
    threads: int = 2


@dataclass(frozen=True)
class Rows:
    """What is learned and judged; `target` is the column of both frames."""

    task: str
    train: pd.DataFrame
    test: pd.DataFrame
    tuning: pd.DataFrame | None = None  # for AutoGluon, in place of a part of `train` that it would draw


@dataclass(frozen=True)
class Fitted:
    """A system's answers to the test rows: values, or probabilities by class in sorted order."""

    predictions: np.ndarray
    seconds: float  # of its search and fit
    ms_per_row: float  # of one row alone, median
    version: str
    chosen: str


def once(folder: Path, name: str, fitted: Callable[[], Fitted]) -> Fitted:
    """What a system answered before in this folder, or what it answers now."""
    import numpy as np

    path = folder / "answers" / f"{name}.npz"
    if not path.is_file():
        found = fitted()
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {each: getattr(found, each) for each in ("seconds", "ms_per_row", "version", "chosen")}
        np.savez(path, predictions=found.predictions, about=np.array(json.dumps(about)))
    with np.load(path) as arrays:
        return Fitted(arrays["predictions"], **json.loads(str(arrays["about"])))


def fit_peer(peer: Peer, rows: Rows, seconds: float, threads: int) -> Fitted:
    """Let a peer fit, and predict the test rows. Raises: PeerFailed."""
    import pandas as pd

    with tempfile.TemporaryDirectory(prefix="driftline-peer-") as name:
        folder = Path(name)
        train, tuning = rows.train, rows.tuning
        if tuning is not None and peer.name != "autogluon":
            train, tuning = pd.concat([train, tuning], ignore_index=True), None
        frames = {"train": train, "test": rows.test} | ({} if tuning is None else {"tuning": tuning})
        for which, frame in frames.items():
            frame.to_parquet(folder / f"{which}.parquet", index=False)
        spec = {"peer": peer.name, "task": rows.task, "seconds": seconds, "threads": threads}
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        (folder / "peer.py").write_text(SCRIPT, encoding="utf-8")
        command = [str(peer.environment / "bin/python"), str(folder / "peer.py"), name]
        _run(command, peer.name, seconds, threads)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        predictions = pd.read_parquet(folder / "predictions.parquet").to_numpy("float64")
    if predictions.shape[1] < 3:  # a value, or the probabilities of two classes
        predictions = predictions[:, -1]
    return Fitted(predictions, **result)


def _run(command: list[str], name: str, seconds: float, threads: int) -> None:
    """Run a peer's script; its whole process group is killed when it is far over its budget. Raises: PeerFailed."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **variables}, start_new_session=True
        )
        started = time.monotonic()
        try:
            code: int | str = process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            code = f"nothing after {time.monotonic() - started:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            output.seek(0)
            raise PeerFailed(f"{name} ended with {code}:\n{output.read()[-2000:]}")
