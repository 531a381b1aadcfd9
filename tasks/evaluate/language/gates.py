"""Evaluate a language candidate against bounds and the champion; a tuned one also against its base and full weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.files import file_digest
from tasks.core.places import Places
from tasks.core.progress import mark_cached, progress_step
from tasks.evaluate.config import Bound, LanguageEvaluation
from tasks.evaluate.criteria import bound_criterion, losses_criterion, paired_criterion, slice_criterion
from tasks.evaluate.language.arms import Arms
from tasks.evaluate.language.champion import answers_of_champion, champion_tests, judge_first, value_or_reason
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.inference import answer_table, wrong_answers
from tasks.evaluate.language.llm_judge import Opinions, judge_opinions
from tasks.evaluate.language.metrics import answer_losses, clusters_of, counts_of, intervals_of, measure, slices_of
from tasks.evaluate.language.parity import Parity, ServedModel, check_parity, parity_criteria
from tasks.evaluate.language.prompt_tests import PromptBench, prompt_criteria, run_prompt_tests
from tasks.evaluate.results import Champion, Criterion, Verdict
from tasks.evaluate.verdicts import Evaluation, find_verdict, require_run, store_verdict
from tasks.language.answer_scoring import METRICS
from tasks.language.open_engine import model_file
from tasks.statistics.metric_catalog import metrics_of
from tasks.train.results import Candidate, LanguageSpec

if TYPE_CHECKING:
    import pandas as pd

SERVED, UNQUANTIZED = "model.gguf", "model.f16.gguf"  # in the folder of a candidate or release
ADAPTER_FOLDER = "adapter"  # in the folder of a tuned candidate
COMPARED = 200  # pairs on which the served and the unquantised weights are compared
BASELINES = {"zero_shot": 150, "few_shot": 300}  # pairs for the untuned base; without examples its answers are long
CONSTRAINED = 100  # pairs that the tuned model answers under the schema's constraint
GOLDEN = 8  # prompts of the parity gate
TIMINGS = ("latency_p50_ms", "cost_per_1k_answers")
JUDGE_SCORE = "judge_score"  # the metric and the criterion that need the judge


def evaluate_language_gates(
    candidate: Candidate,
    spec: LanguageSpec,
    config: LanguageEvaluation,
    *,
    threads: int,
    places: Places,
    champion: Champion | None = None,
) -> Verdict:
    """Generate and score answers, check every gate, and log the verdict to the candidate's run.

    `champion.model` is the folder of a release, or the model in it. Equal inputs return the stored verdict.

    Raises: DataError when the candidate's own model or pairs can't be read; DriftlineError when its run is gone.
    """
    champion = champion or Champion(None)
    model = model_file(champion.model) if champion.model and champion.model.is_dir() else champion.model
    key = cache_key(
        __name__,
        {
            "candidate": [candidate.run_id, candidate.weights_digest, candidate.data_digest],
            "base": [spec.base.digest, spec.base.template_digest],
            "asked": [spec.chat.digest, spec.serving.digest],
            "gates": config.digest,
            "embedder": spec.embedder.digest if spec.embedder else None,
            "tests": spec.chat.prompt.tests.digest if spec.chat.prompt.tests else None,
            "champion": [champion.digest, file_digest(model) if model and model.is_file() else None, model is not None],
        },
    )
    folder = places.state / "verdicts" / candidate.case / key[:16]
    if (stored := find_verdict(folder)) is not None:
        if not any(each.name == JUDGE_SCORE and each.observed is None for each in stored.criteria):
            mark_cached()
            return stored
        rmtree(folder)  # the judge may respond now; all other responses are cached
    require_run(candidate, places.tracking)

    run = EvaluationRun(candidate.frame, spec, threads, places.state, config.scorers)
    price = config.cpu_price_per_hour
    passages = Arms(run, candidate.folder, config.compared) if spec.knowledge else None
    early = judge_first(run, passages, candidate.folder, config, champion=model)
    if early and not early.passed:
        run = replace(run, first_only=True)
        passages = Arms(run, candidate.folder, config.compared) if spec.knowledge else None
    arms = passages.side_by_side(run.evaluation_set) if passages else {}
    if passages:
        served, timing = arms[passages.served_arm]
        served = served.assign(variant="served")
    else:
        served, timing = run.answers("served", model_file(candidate.folder), run.evaluation_set)
    constrained = None
    if spec.chat.answer.json_schema is not None and (spec.base.upstream is None or spec.base.upstream.json_schema):
        constrained = run.answers(
            "constrained", model_file(candidate.folder), run.sample(CONSTRAINED), constrained=True
        )
    baselines = {
        name: run.answers(name, spec.base.served, run.sample(BASELINES[name]), *prompt)
        for name, prompt in run.baseline_prompts.items()
    }
    baselines |= arms
    baseline_perplexities = run.perplexities(None, {} if spec.base.upstream else run.baseline_prompts)
    perplexity, unquantized = None, None
    no_perplexity = not_unquantized = "the model is not tuned"
    tuned_answers = arms["tuned"][0] if "tuned" in arms else served
    if tuned := (candidate.folder / ADAPTER_FOLDER).is_dir() and ("tuned" in arms or not passages):
        perplexity, no_perplexity = value_or_reason(
            lambda: run.perplexities(candidate.folder / ADAPTER_FOLDER, {"served": (spec.chat.prompt, [])})
        )
        unquantized, not_unquantized = _unquantized(run, passages, candidate.folder, tuned_answers)
    champion_answers, no_champion = answers_of_champion(run, passages, model, champion.digest)
    opinions, no_opinions = _opinions(config, served, places.state)

    overall = measure(served, timing, price) | ({"perplexity": perplexity["served"]} if perplexity else {})
    if opinions:
        overall |= {JUDGE_SCORE: fmean(score for score, _ in opinions.values()), "judge_n": len(opinions)}
        for column, place in ((JUDGE_SCORE, 0), ("judge_reason", 1)):
            served[column] = [opinions[each][place] if each in opinions else None for each in served["pair_id"]]
    tables = [served, *(answers[0] for answers in (constrained, *baselines.values()) if answers)]
    tables += [table for table in (unquantized, champion_answers) if table is not None]
    metrics: dict[str, Any] = {
        "overall": overall,
        "baselines": {
            name: measure(*answers, price)
            | ({"perplexity": baseline_perplexities[name]} if name in baseline_perplexities else {})
            for name, answers in baselines.items()
        },
        "constrained": measure(*constrained, price) if constrained else {},
        "unquantized": {} if unquantized is None else measure(unquantized),
        "by_slice": {column: slices_of(served, column) for column in config.slices if column in served},
        "by_month": {},
        **({"retrieval": passages.retrieval(run.evaluation_set)} if passages else {}),
        "counts": {str(table["variant"].iat[0]): counts_of(table) for table in tables},
        "intervals": {str(table["variant"].iat[0]): intervals_of(table) for table in tables},
    }
    problems = {"perplexity": no_perplexity, JUDGE_SCORE: no_opinions}
    criteria = [_bound(each, overall, problems) for each in config.bounds]
    criteria += [early] if early and not early.passed else []
    if gate := config.slice_gate:
        criteria += [slice_criterion(gate, c, overall, metrics["by_slice"].get(c)) for c in config.slices]
    criteria.append(_champion(config, served, champion_answers, no_champion))
    criteria += _unjudged(served)
    if tests := spec.chat.prompt.tests:
        bench = PromptBench(spec.serving, spec.chat.context, threads, places.state, spec.chat.answer.json_schema, price)
        own = replace(bench, answerer=passages.served_answerer if passages else None)
        answers = run_prompt_tests(model_file(candidate.folder), spec.chat.prompt, tests, own)
        of_champion, problem = (
            (None, no_champion)
            if model is None
            else value_or_reason(partial(champion_tests, run, model, bench, passages))
        )
        criteria += prompt_criteria(tests, answers, of_champion, problem)
    if config.above_few_shot is not None:
        criteria.append(_above_few_shot(config.above_few_shot, served, baselines["few_shot"][0]))
    if constrained:
        criteria.append(_constrained(metrics["constrained"]))
    if tuned:
        criteria.append(_quantized(config.quantized_loss, tuned_answers, unquantized, not_unquantized))
        parity, no_parity = value_or_reason(lambda: _parity(run, candidate.folder, config.parity))
        criteria += parity_criteria(parity, config.parity, no_parity)

    by_prefix = {"": overall, **{f"{name}_": values for name, values in metrics["baselines"].items()}}
    scores = _concatenated(tables)
    shown = scores
    if spec.base.upstream:
        scores = _concatenated([scores, run.repeated(served)])
    evaluation = Evaluation(
        criteria=criteria,
        metrics=metrics,
        logged={f"{prefix}{name}": value for prefix, values in by_prefix.items() for name, value in values.items()},
        scores=scores,
        champion=champion.digest,
        notes={"wrong_answers.md": wrong_answers(shown), "answers.json": answer_table(shown)},
    )
    return store_verdict(candidate, evaluation, folder, places.tracking)


def _unquantized(
    run: EvaluationRun, passages: Arms | None, folder: Path, tuned: pd.DataFrame
) -> tuple[pd.DataFrame | None, str]:
    """Answers of the model before quantization, on a sample of the pairs."""
    if run.spec.serving.weights == "f16":  # the served weights are not quantized
        return tuned.assign(variant="unquantized"), ""
    model, pairs = folder / UNQUANTIZED, run.sample(passages.compared if passages else COMPARED)
    answers, problem = value_or_reason(
        lambda: (
            passages.answers("unquantized", model, pairs, passages.answerer("model"))
            if passages
            else run.answers("unquantized", model, pairs)
        )
    )
    return (answers[0] if answers else None), problem


def _opinions(config: LanguageEvaluation, served: pd.DataFrame, state: Path) -> tuple[Opinions, str]:
    """The judge's opinions on the served answers, or why there are none."""
    judge = config.judge
    if judge is None:
        return {}, ""
    opinions, problem = value_or_reason(lambda: judge_opinions(judge, served, state))
    if problem:
        warnings.warn(f"The answers are not judged by {judge.model}: {problem}", stacklevel=2)
    return opinions or {}, problem


def _bound(bound: Bound, overall: dict[str, float], problems: dict[str, str]) -> Criterion:
    criterion = bound_criterion(bound, overall)
    if problem := problems.get(bound.metric):
        return criterion.model_copy(update={"note": problem})
    return criterion.model_copy(update={"repeatable": bound.metric not in TIMINGS})


def _champion(
    config: LanguageEvaluation, served: pd.DataFrame, champion: pd.DataFrame | None, problem: str
) -> Criterion:
    ordinary = served[~served["unsafe"]]
    return losses_criterion(
        config.champion_gate,
        answer_losses(ordinary, config.champion_gate.loss),
        None if champion is None else answer_losses(champion, config.champion_gate.loss),
        problem,
        clusters=clusters_of(ordinary),
    )


def _unjudged(served: pd.DataFrame) -> list[Criterion]:
    """A warning when no right answer or fact is known, which names what is not judged."""
    ordinary = served[~served["unsafe"]]
    measured = measure(ordinary)
    missing = [metric.name for metric in METRICS if metric.judges and metric.name not in measured]
    if ordinary["has_reference"].any() or "required_facts_recall" in measured:
        return []
    form = "json" if ordinary["json_valid"].notna().any() else "text"
    forms = (None, form, "passages" if "confidence" in served else form)
    shown = {metric.name for metric in METRICS if metric.format in forms} & {*metrics_of("answers")}
    names = [name for name in missing if name in shown]
    note = f"whether answers are right is unknown; not judged: {', '.join(names)}"
    return [Criterion(name="known_answers", observed=0.0, required=">= 1", passed=False, note=note, blocking=False)]


def _above_few_shot(at_least: float, served: pd.DataFrame, few_shot: pd.DataFrame) -> Criterion:
    """How far exact match lies above the base's; in the base's favour, JSON within prose counts as exact."""
    served, few_shot = _same_pairs(served, few_shot)
    return paired_criterion(
        "exact_match_above_few_shot",
        served["exact"].to_numpy(float) - few_shot["exact_anywhere"].to_numpy(float),
        clusters_of(served),
        at_least=at_least,
    )


def _quantized(at_most: float, served: pd.DataFrame, unquantized: pd.DataFrame | None, problem: str) -> Criterion:
    """What quantization costs in exact match."""
    name = "quantized_loss"
    if unquantized is None:
        return Criterion(name=name, observed=None, required=f"<= {at_most:g}", passed=False, note=problem)
    served, before = _same_pairs(served, unquantized)
    lost = before["exact"].to_numpy(float) - served["exact"].to_numpy(float)
    return paired_criterion(name, lost, clusters_of(served), at_most=at_most)


def _constrained(metrics: dict[str, float]) -> Criterion:
    observed = metrics["schema_validity"]
    note = f"{metrics['n']} answers that the schema constrains"
    return Criterion(
        name="constrained_schema_validity", observed=observed, required=">= 1", passed=observed >= 1, note=note
    )


def _parity(run: EvaluationRun, folder: Path, bound: float) -> Parity:
    golden = [json.loads(messages) for messages in run.sample(GOLDEN)["messages"].head(GOLDEN)]
    served = ServedModel(folder / SERVED, run.spec.chat.prompt)
    with progress_step("compare serving and training stack"):
        return check_parity(run.spec, folder / ADAPTER_FOLDER, served, golden, threads=run.threads, bound=bound)


def _same_pairs(table: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ordinary rows of both tables for the pairs of `other`, in the same order."""
    table, other = (each[~each["unsafe"]].set_index("pair_id", drop=False) for each in (table, other))
    return table.loc[other.index], other


def _concatenated(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
