"""Private parts of libraries that training needs, one function each; tests/train/test_compat.py checks them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from types import SimpleNamespace
from typing import Any

# The types that model files may hold besides those that skops trusts: data holders of scikit-learn and numpy.
TRUSTED_TYPES = (
    "functools.partial",  # the function that it calls must be trusted too
    "numpy.dtype",
    "sklearn._loss.link.BaseLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
    "sklearn.model_selection._split.KFold",  # of a TargetEncoder
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "tasks.train.tabular.encoders.CharacterNgrams",
    "tasks.train.tabular.encoders.DateParts",
    "tasks.train.tabular.encoders.TextColumn",
    "tasks.train.tabular.ensemble.Ensemble",
    "tasks.train.tabular.group_thresholds.GroupThresholds",
    "sklearn.tree._tree.Tree",  # it follows node numbers unchecked, so model_file.load() checks them
)


@contextmanager
def plain_torch_logprobs() -> Iterator[None]:
    """Let trl compute log-probabilities by `TorchLogProbs`; its own functions are restored at the end.

    Without Triton, trl would also score each prompt, in its kernels' steps: a tenth of a small model's time.
    """
    from trl.trainer import utils

    from tasks.train.language.logprobs import TorchLogProbs

    trl_utils: Any = utils
    originals = trl_utils._use_triton, trl_utils._ChunkedLogProbFunction
    trl_utils._use_triton, trl_utils._ChunkedLogProbFunction = (lambda device: True), TorchLogProbs
    try:
        yield
    finally:
        trl_utils._use_triton, trl_utils._ChunkedLogProbFunction = originals


def reset_accelerator_state() -> None:
    """Let accelerate forget a closed process group; its state lasts for the whole process, without a public reset."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def cpu_supports_bf16() -> bool:
    """Whether this CPU computes in bf16; torch has no public query."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def validate_parameters(estimator: Any) -> None:
    """Check an estimator's parameters before `fit`, where scikit-learn itself checks them.

    Raises: ValueError.
    """
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()


def boosting_trees(estimator: Any) -> list[Any]:
    """The trees of a histogram gradient boosting, none of other estimators; there is no public attribute."""
    return [tree for iteration in getattr(estimator, "_predictors", ()) for tree in iteration]


def boosting_parts(estimator: Any) -> tuple[Any, Any]:
    """What a histogram gradient boosting adds its trees to, shape (1, outputs), and its loss; neither is public."""
    return estimator._baseline_prediction, estimator._loss


def encoded_boosting(estimator: Any) -> tuple[Any, list[Any]]:
    """A boosting that takes each category as its position among the known ones, and these by categorical column.

    It is for treelite's importer, which reads NaN among the categories, scikit-learn's missing value, as a number.
    """
    import numpy as np

    preprocessor = getattr(estimator, "_preprocessor", None)
    if preprocessor is None:
        return estimator, []
    known = [each[each == each] for each in preprocessor.transformers_[0][1].categories_]
    positions = SimpleNamespace(categories_=[np.arange(len(each)) for each in known])
    plain = copy(estimator)
    plain._preprocessor = SimpleNamespace(
        transformers_=[("encoder", positions, []), ("numerical", None, []), ("remainder", "drop", [])]
    )
    return plain, known
