"""`driftline validate`: all that can be said of a case without running it."""

from __future__ import annotations

from flows.case import load
from tasks.foundation.settings import settings


def check(name: str, profile: str | None = None) -> str:
    """Read a case and hold each section against the engine it is for; one paragraph when all is well.

    Raises: CaseError or DataError naming what is wrong.
    """
    case = load(name, settings().cases, profile)
    from tasks.data.expectations import check_expectations
    from tasks.data.sources import locate
    from tasks.evaluate.gates import check_gates
    from tasks.train.pipeline import check_training

    for source, config in case.data.sources.items():
        locate(config.uri, case.folder)
        check_expectations(source, config)
    check_training(case.train, case.target.task)
    check_gates(case.evaluate, case.target.task)
    expectations = sum(len(s.expectations) + len(s.batch_expectations) for s in case.data.sources.values())
    return (
        f"{name} is valid: {len(case.data.sources)} sources with {expectations} expectations, "
        f"{len(case.features.views)} feature views, {case.train.family.rsplit('.', 1)[-1]}, "
        f"{len(case.evaluate.bounds)} bounds. Next: driftline run {name}"
    )
