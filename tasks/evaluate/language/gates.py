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
from tasks.core.progress import mark_cached, progress_step
from tasks.evaluate.config import Bound, Counterfactuals, LanguageEvaluation
from tasks.evaluate.criteria import bound_criterion
from tasks.evaluate.language.arms import Arms
from tasks.evaluate.language.champion import answers_of_champion, champion_tests, judge_first, value_or_reason
from tasks.evaluate.language.counterfactuals import VARIANT, change_criterion, swapped_pairs
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.inference import answer_table, wrong_answers
from tasks.evaluate.language.llm_judge import Opinions, judge_opinions
from tasks.evaluate.language.metrics import counts_of, intervals_of, measure, slices_of
from tasks.evaluate.language.parity import Parity, ServedModel, check_parity, parity_criteria
from tasks.evaluate.language.prompt_tests import PromptBench, prompt_criteria, run_prompt_tests
from tasks.evaluate.language.scores import BESIDE, JUDGE_SCORE, TIMINGS, Problems, StoredAnswers, score_criteria
from tasks.evaluate.results import Criterion, EvaluationContext, Verdict
from tasks.evaluate.verdicts import Evaluation, find_verdict, require_run, store_verdict, without_timing
from tasks.evaluate.waivers import split_waivers, waive_gates
from tasks.language.open_engine import model_file
from tasks.train.results import Candidate, LanguageSpec

if TYPE_CHECKING:
    import pandas as pd

SERVED, UNQUANTIZED = "model.gguf", "model.f16.gguf"  # in the folder of a candidate or release
ADAPTER_FOLDER = "adapter"  # in the folder of a tuned candidate
COMPARED = 200  # pairs on which the served and the unquantised weights are compared
BASELINES = {"zero_shot": 150, "few_shot": 300}  # pairs for the untuned base; without examples its answers are long
CONSTRAINED = 100  # pairs that the tuned model answers under the schema's constraint
GOLDEN = 8  # prompts of the parity gate


def evaluate_language_gates(
    candidate: Candidate,
    spec: LanguageSpec,
    config: LanguageEvaluation,
    *,
    threads: int,
    context: EvaluationContext,
) -> Verdict:
    """Generate and score answers, check every gate, and log the verdict to the candidate's run.

    The champion's model is the folder of a release, or the model in it. Equal inputs return the stored verdict.

    Raises: DataError when the candidate's own model or pairs can't be read; DriftlineError when its run is gone.
    """
    champion, places = context.champion, context.places
    valid, expired = split_waivers(config.waive)
    config = config.model_copy(update={"waive": valid})
    model = model_file(champion.model) if champion.model and champion.model.is_dir() else champion.model
    key = cache_key(
        __name__,
        {
            "candidate": [candidate.run_id, candidate.weights_digest, candidate.data_digest],
            "base": [spec.base.digest, spec.base.template_digest],
            "chat": [spec.chat.digest, spec.serving.digest],
            "gates": [config.digest, *(each.name for each in expired)],
            "embedder": spec.embedder.digest if spec.embedder else None,
            "tests": spec.chat.prompt.tests.digest if spec.chat.prompt.tests else None,
            "champion": [champion.digest, file_digest(model) if model and model.is_file() else None, model is not None],
            "measured": [each.model_dump(mode="json") for each in context.measured],
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
    shown = scores = _concatenated(tables)
    evidence = StoredAnswers(
        evaluate=config,
        tuned=str(tuned_answers["variant"].iat[0]) if tuned else "",
        first_only=run.first_only,
        problems=Problems(champion=no_champion, unquantized=not_unquantized),
    )
    criteria = score_criteria(evidence, scores)
    computed = len(criteria)
    criteria += [_bound(each, overall, problems) for each in config.bounds if each.metric in BESIDE]
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
    if config.counterfactuals:
        swapped = _swapped(config.counterfactuals, run, passages, candidate.folder)
        criteria.append(change_criterion(config.counterfactuals, served, swapped))
        if len(swapped):
            scores = _concatenated([scores, swapped])
    if tuned:
        parity, no_parity = value_or_reason(lambda: _parity(run, candidate.folder, config.parity))
        criteria += parity_criteria(parity, config.parity, no_parity)
    criteria = [*waive_gates([*criteria, *context.measured], config.waive), *expired]
    evidence = evidence.model_copy(
        update={"criteria": tuple(without_timing(each) for each in criteria), "computed": computed}
    )

    by_prefix = {"": overall, **{f"{name}_": values for name, values in metrics["baselines"].items()}}
    if spec.base.upstream:
        scores = _concatenated([scores, run.repeated(served)])
    evaluation = Evaluation(
        criteria=criteria,
        metrics=metrics,
        logged={f"{prefix}{name}": value for prefix, values in by_prefix.items() for name, value in values.items()},
        scores=scores,
        champion=champion.digest,
        evidence=evidence.model_dump_json(indent=1),
        notes={"wrong_answers.md": wrong_answers(shown), "answers.json": answer_table(shown)},
    )
    return store_verdict(candidate, evaluation, folder, places.tracking)


def _swapped(config: Counterfactuals, run: EvaluationRun, passages: Arms | None, folder: Path) -> pd.DataFrame:
    """The served answers to messages about another person or place."""
    pairs = swapped_pairs(config, run.evaluation_set)
    if pairs.empty:
        return pairs
    if passages:
        answers, _ = passages.answers(VARIANT, model_file(folder), pairs, passages.served_answerer)
    else:
        answers, _ = run.answers(VARIANT, model_file(folder), pairs)
    return answers


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


def _parity(run: EvaluationRun, folder: Path, bound: float) -> Parity:
    golden = [json.loads(messages) for messages in run.sample(GOLDEN)["messages"].head(GOLDEN)]
    served = ServedModel(folder / SERVED, run.spec.chat.prompt)
    with progress_step("compare serving and training stack"):
        return check_parity(run.spec, folder / ADAPTER_FOLDER, served, golden, threads=run.threads, bound=bound)


def _concatenated(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
