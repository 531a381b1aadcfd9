"""The sampler's memory of a search: an Optuna study in a journal file of its own."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study

STARTUP = 12  # trials that are drawn at random before the sampler models them


def open_study(folder: Path, seed: int, workers: int) -> Study:
    """The study of a search, new or as a killed process left it: what ran then is suggested again first.

    The sampler is Optuna's TPE, over all parameters of a family together.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
    before = study.get_trials(deepcopy=False)
    # a sampler that goes on with the seed of its start would draw the same again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=seed + len(before), n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=workers > 1
        )
    for trial in before:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params, skip_if_exists=False)
    return study
