"""Searches on labels that say nothing: what they find must rarely pass the gate against the case as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import digest_of
from tasks.evaluate.config import ChampionGate
from tasks.evaluate.criteria import losses_criterion
from tasks.features.results import Column, Frame
from tasks.search.config import Search
from tasks.search.search import search
from tasks.search.tabular.problem import TabularProblem
from tasks.train.classes import encode_target
from tasks.train.config import Split, Target, Train
from tasks.train.metrics import losses
from tasks.train.tabular.fit import fit
from tasks.train.tabular.pipeline import build_pipeline
from tasks.train.tabular.scoring import predict
from tasks.train.tabular.split import split_frame

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ROWS, COLUMNS = 600, 6
TARGET = Target(column="target", task="classification")
START = Train(
    family="sklearn.linear_model.LogisticRegression", split=Split(by="hash", share=0.3), threads=1
)  # the case as it is
GATE = ChampionGate(loss="brier", margin=0.0, min_rows=100)  # no worse at all: a search has to show that it is better


def promoted(number: int, folder: Path, budget: str) -> bool:
    """Whether the choice of one search, trained as a case is, passes the gate on the hold-out."""
    frame = shuffled_frame(number, folder)
    problem = TabularProblem(f"shuffled-{number}", frame, TARGET, START, Search(seed=number), "auc", None)
    result = search(problem, Search(seed=number), budget, state=folder, observe=lambda _: None)
    if not result.chosen:
        return False
    change = problem.as_change(result.best.configuration)["train"] or {}
    return passes(frame, START, Train.model_validate({**START.model_dump(mode="json"), **change}))


def passes(frame: Frame, champion: Train, challenger: Train) -> bool:
    """Whether a configuration is not worse than another by the gate, both trained on the training rows alone."""
    import pandas as pd

    training, held = split_frame(pd.read_parquet(frame.path), champion.split, TARGET)
    proposed, other = (_losses(config, training, held, frame.columns) for config in (challenger, champion))
    return bool(losses_criterion(GATE, proposed, other).passed)


def shuffled_frame(number: int, folder: Path) -> Frame:
    """Rows whose labels were drawn apart from their features."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(number)
    names = [f"x{at}" for at in range(COLUMNS)]
    table = pd.DataFrame(random.normal(size=(ROWS, COLUMNS)), columns=names)
    table["example_id"] = [f"row-{number}-{at}" for at in range(ROWS)]
    table["event_timestamp"] = pd.Timestamp("2026-01-01", tz="UTC")
    table["target"] = random.integers(0, 2, ROWS)
    path = folder / f"{number}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
    columns = tuple(Column(name=name, kind="number", origin="request") for name in names)
    moment = table["event_timestamp"][0].to_pydatetime()
    return Frame(
        path=path,
        data_digest=digest_of(["shuffled", number]),
        definitions_digest=digest_of(names),
        rows=ROWS,
        columns=columns,
        start=moment,
        end=moment,
    )


def _losses(config: Train, training: pd.DataFrame, held: pd.DataFrame, columns: Any) -> np.ndarray:
    model = fit(build_pipeline(config, TARGET.task, columns), training, TARGET, config, columns)
    return losses(GATE.loss, encode_target(held["target"], model.classes), predict(model, held))
