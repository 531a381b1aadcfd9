"""`driftline validate`: every check of a case that needs no run."""

from __future__ import annotations

from flows.case import LanguageCase, TabularCase, load_case
from tasks.core.settings import settings

LISTED = 20  # quotations


def check(name: str, profile: str | None = None) -> str:
    """Check each section of a case with the engine that will use it; return a summary when all are valid.

    Raises: CaseError or DataError naming what is wrong.
    """
    return check_case(load_case(name, settings().cases, profile))


def check_case(case: TabularCase | LanguageCase) -> str:
    """Check a case that is read, wherever its file lies.

    Raises: CaseError or DataError naming what is wrong.
    """
    from services.gateway.log_export import check_log
    from tasks.data.origins.fetch import check_source
    from tasks.data.tabular.expectations import check_expectations
    from tasks.features.sql import check_sql

    for source, config in case.data.sources.items():
        if config.log:
            kind = case.kind if config.log == case.name else load_case(config.log, settings().cases).kind
            check_log(config.log, kind, settings())
        else:
            check_source(config, case.folder)
        check_sql(f"data.sources.{source}.sql", config.sql)
        check_expectations(source, config)
    expectations = sum(len(s.expectations) + len(s.batch_expectations) for s in case.data.sources.values())
    summary = _check_language(case) if isinstance(case, LanguageCase) else _check_table(case)
    sources = f"{len(case.data.sources)} sources with {expectations} expectations"
    missing = _missing_quotations(case) if isinstance(case, LanguageCase) else ""
    return f"{case.name} is valid: {sources}, {summary}. Next: driftline run {case.name}{missing}"


def _check_table(case: TabularCase) -> str:
    from tasks.evaluate.tabular.gates import check_gates
    from tasks.evaluate.waivers import check_waivers
    from tasks.features.sql import check_sql
    from tasks.monitor.config import check_monitor
    from tasks.train.tabular.pipeline import check_training

    check_sql("features.examples", case.features.examples)
    for name, view in case.features.views.items():
        check_sql(f"features.views.{name}.sql", view.sql)
    check_training(case.train, case.target.task)
    check_gates(case.evaluate, case.target.task)
    if not case.features.views:  # the features of views are known once their SQL has run
        check_waivers(case.evaluate, case.features.request)
    check_monitor(case.monitor, case.target.task, has_time=case.has_time)
    family = case.train.family.rsplit(".", 1)[-1]
    return f"{len(case.features.views)} feature views, {family}, {len(case.evaluate.bounds)} bounds"


def _check_language(case: LanguageCase) -> str:
    from tasks.data.language.curate import check_pairs
    from tasks.data.language.embedder_files import find_embedder
    from tasks.data.language.traffic import check_traffic
    from tasks.evaluate.language.check import check_language_evaluation
    from tasks.monitor.config import check_monitor

    check_pairs(case.pairs, case.answer, case.data.sources)
    check_language_evaluation(
        case.evaluate, case.chat_spec, case.pairs, tuned=case.train is not None, knowledge=case.knowledge is not None
    )
    check_traffic(case.traffic, case.data.sources)
    check_monitor(case.monitor, "answers", scorers=case.evaluate.scorers)
    of_documents = case.knowledge.embedder if case.knowledge else None
    for embedder in filter(None, {case.monitor.embedder, case.serve.embedder, of_documents}):
        find_embedder(embedder, case.folder)
    stages = ", ".join(name for name, stage in case.train.stages if stage) if case.train else ""
    tuning = f"stages {stages}" if stages else "no tuning"
    return f"base {case.model.source}, {tuning}, answers in {case.answer.format}, {len(case.evaluate.bounds)} bounds"


def _missing_quotations(case: LanguageCase) -> str:
    """A warning with the quotations of questions that no longer stand in the documents; empty without any."""
    from tasks.core.display import escape_terminal
    from tasks.knowledge.answers.quotation_check import missing_quotations

    if case.knowledge is None:
        return ""
    sources = {name: case.data.sources[name] for name in case.pairs.sources}
    if not (missing := missing_quotations(case.knowledge, sources, case.folder)):
        return ""
    more = [f"and {len(missing) - LISTED} more"] if len(missing) > LISTED else []
    lines = [f"  {escape_terminal(line)}" for line in (*missing[:LISTED], *more)]
    head = f"{len(missing)} quotations no longer stand in the documents; their questions count as not found:"
    return "\n".join(["", head, *lines])
