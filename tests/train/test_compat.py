"""Promise: each private part of a library that training uses exists; a failure names the library."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from tasks.train import compat


def test_trl_has_the_functions_that_are_replaced() -> None:
    """They are replaced within the block only."""
    from trl.trainer import utils as trl_utils

    from tasks.train.language.logprobs import TorchLogProbs

    utils: Any = trl_utils
    for name in ("_use_triton", "_ChunkedLogProbFunction"):
        assert hasattr(utils, name), f"trl.trainer.utils has no {name} any more"
    originals = utils._use_triton, utils._ChunkedLogProbFunction
    with compat.plain_torch_logprobs():
        assert utils._ChunkedLogProbFunction is TorchLogProbs
    assert (utils._use_triton, utils._ChunkedLogProbFunction) == originals


def test_accelerate_can_be_reset() -> None:
    from accelerate.state import AcceleratorState

    assert hasattr(AcceleratorState, "_reset_state"), "accelerate's AcceleratorState has no _reset_state any more"
    compat.reset_accelerator_state()


def test_torch_reports_bf16_support() -> None:
    import torch

    assert hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"), "torch.ops.mkldnn lacks its bf16 query"
    assert compat.cpu_supports_bf16() in (True, False)


def test_scikit_learn_validates_parameters_before_fit() -> None:
    from sklearn.linear_model import LogisticRegression

    assert hasattr(LogisticRegression, "_validate_params"), (
        "scikit-learn's estimators have no _validate_params any more"
    )
    with pytest.raises(ValueError, match="max_iter"):
        compat.validate_parameters(LogisticRegression(max_iter="many"))


def test_scikit_learn_shows_the_trees_of_boosting() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(max_iter=2).fit(np.arange(40.0).reshape(-1, 1), np.arange(40.0))
    trees = compat.boosting_trees(model)
    assert len(trees) == 2, "scikit-learn's HistGradientBoosting has no _predictors any more"
    assert {"left", "right", "feature_idx", "is_leaf"} <= set(trees[0].nodes.dtype.names)


@pytest.mark.parametrize("name", compat.TRUSTED_TYPES)
def test_skops_trusted_types_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute), f"{module} has no {attribute} any more"


def test_boosting_has_a_baseline_a_loss_and_its_categories() -> None:
    """Of scikit-learn 1.9; NaN among the categories is left out."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    matrix = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, np.nan]] * 40)
    model = HistGradientBoostingClassifier(categorical_features=[1], max_iter=2).fit(matrix, matrix[:, 0] > 0)
    baseline, loss = compat.boosting_parts(model)
    assert baseline.shape == (1, 1)
    assert loss.predict_proba(baseline).shape == (1, 2)
    plain, categories = compat.encoded_boosting(model)
    assert [each.tolist() for each in categories] == [[5.0, 7.0]]
    assert plain is not model
