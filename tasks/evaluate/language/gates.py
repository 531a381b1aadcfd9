"""Judge a tuned language model by its answers: against bounds, the untuned base, itself unquantised, the champion."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.core.code_digest import cache_key
from tasks.core.errors import DataError, Unavailable
from tasks.core.files import file_digest
from tasks.core.mlflow import Tracking
from tasks.core.progress import mark_cached, progress_step
from tasks.data.config import ChatSpec
from tasks.data.language.base_model import GGUF
from tasks.data.results import BaseModelFiles
from tasks.evaluate.config import LanguageEvaluation
from tasks.evaluate.criteria import bound_criterion, losses_criterion, paired_criterion, slice_criterion
from tasks.evaluate.language.evaluation_run import EvaluationRun
from tasks.evaluate.language.genai_report import log_genai_evaluation
from tasks.evaluate.language.inference import answer_table, baseline_prompt, wrong_answers
from tasks.evaluate.language.llm_judge import Opinions, judge_opinions
from tasks.evaluate.language.metrics import clusters_of, intervals_of, measure, slices_of
from tasks.evaluate.language.parity import Parity, check_parity, parity_criteria
from tasks.evaluate.results import Criterion, Verdict
from tasks.evaluate.verdicts import find_verdict, require_run, store_verdict
from tasks.train.config import Serving
from tasks.train.results import Candidate

if TYPE_CHECKING:
    import pandas as pd

Found = TypeVar("Found")

SERVED, UNQUANTIZED, SYSTEM = "model.gguf", "model.f16.gguf", "system.txt"  # in the folder of a candidate or release
COMPARED = 200  # pairs on which the served and the unquantised weights are compared
BASELINES = {"zero_shot": 150, "few_shot": 300}  # pairs that the untuned base is asked; without examples it rambles
CONSTRAINED = 100  # pairs that the tuned model is asked under the schema's constraint
GOLDEN = 8  # prompts of the parity gate
TIMINGS = ("latency_p50_ms", "cost_per_1k_answers")
JUDGED = "judge_score"  # the metric, and the criterion that needs the judge


def evaluate_language_gates(
    candidate: Candidate,
    base: BaseModelFiles,
    talk: ChatSpec,
    serving: Serving,
    config: LanguageEvaluation,
    threads: int,
    state: Path,
    tracking: Tracking,
    champion: Path | None = None,
    champion_digest: str | None = None,
) -> Verdict:
    """Ask and score, hold the figures against every gate, log the verdict to the candidate's run, and give it.

    `champion` is the folder of a release, or the model in it. The same question asked again gives the stored verdict.

    Raises: DataError when the candidate's own model or pairs can't be read; DriftlineError when its run is gone.
    """
    rival = champion / SERVED if champion and champion.is_dir() else champion
    key = cache_key(
        __name__,
        {
            "candidate": [candidate.run_id, candidate.weights_digest, candidate.data_digest],
            "base": [base.digest, base.template_digest],
            "asked": [talk.digest, serving.digest],
            "gates": config.digest,
            "champion": [champion_digest, file_digest(rival) if rival and rival.is_file() else None, rival is not None],
        },
    )
    folder = state / "verdicts" / candidate.case / key[:16]
    if (stored := find_verdict(folder)) is not None:
        if not any(each.name == JUDGED and each.observed is None for each in stored.criteria):
            mark_cached()
            return stored
        rmtree(folder)  # the judge may answer now; all other answers are kept
    require_run(candidate, tracking)

    bench = EvaluationRun(candidate.frame, base, talk, serving, threads, state)
    price = config.cpu_price_per_hour
    served, timing = bench.answers("served", candidate.folder / SERVED, bench.questions)
    constrained, under = bench.answers(
        "constrained", candidate.folder / SERVED, bench.some(CONSTRAINED), constrained=True
    )
    likely, unlikely = _try(
        lambda: bench.perplexities(candidate.folder / "adapter", {"served": (talk.prompt.system, [])})["served"]
    )
    told = baseline_prompt(talk.prompt, talk.answer)
    prompts = {"zero_shot": (told, []), "few_shot": (told, bench.shown)}
    baselines = {
        name: bench.answers(name, base.folder / GGUF, bench.some(BASELINES[name]), system, shown)
        for name, (system, shown) in prompts.items()
    }
    wavering = bench.perplexities(None, prompts)
    unquantized, missing = _unquantized(bench, candidate.folder, served)
    rivals, problem = _champion_answers(bench, rival, champion_digest)

    opinions, silent = _opinions(config, served, state)

    overall = measure(served, timing, price) | ({} if likely is None else {"perplexity": likely})
    overall |= {JUDGED: fmean(score for score, _ in opinions.values()), "judge_n": len(opinions)} if opinions else {}
    tables = [served, constrained, *(scored for scored, _ in baselines.values())]
    tables += [table for table in (unquantized, rivals) if table is not None]
    metrics: dict[str, Any] = {
        "overall": overall,
        "baselines": {
            name: measure(*asked, price) | {"perplexity": wavering[name]} for name, asked in baselines.items()
        },
        "constrained": measure(constrained, under, price),
        "unquantized": {} if unquantized is None else measure(unquantized),
        "by_slice": {column: slices_of(served, column) for column in config.slices if column in served},
        "by_month": {},
        "intervals": {str(table["variant"].iat[0]): intervals_of(table) for table in tables},
    }
    problems = {"perplexity": unlikely, JUDGED: silent}
    criteria = [_bound(each, overall, problems) for each in config.bounds]
    if gate := config.slice_gate:
        criteria += [slice_criterion(gate, c, overall, metrics["by_slice"].get(c)) for c in config.slices]
    criteria.append(_champion(config, served, rivals, problem))
    if config.above_few_shot is not None:
        criteria.append(_above_few_shot(config.above_few_shot, served, baselines["few_shot"][0]))
    criteria.append(_constrained(metrics["constrained"]))
    criteria.append(_quantized(config.quantized_loss, served, unquantized, missing))
    parity, unlike = _try(lambda: _parity(bench, candidate.folder, config.parity))
    criteria += parity_criteria(parity, config.parity, unlike)

    logged = {"": overall, **{f"{name}_": found for name, found in metrics["baselines"].items()}}
    figures = {f"{prefix}{name}": value for prefix, found in logged.items() for name, value in found.items()}
    scores = _stacked(tables)
    notes = {"wrong_answers.md": wrong_answers(scores), "answers.json": answer_table(scores)}
    log_genai_evaluation(candidate.run_id, served, talk.answer, opinions, tracking)
    return store_verdict(candidate, criteria, metrics, figures, scores, champion_digest, folder, tracking, notes)


def _try(do: Callable[[], Found]) -> tuple[Found | None, str]:
    """What was found, or why it can't be: the criteria that need it then fail, and the verdict says so."""
    try:
        return do(), ""
    except (DataError, Unavailable) as error:
        return None, f"{error.what} {error.found.strip().splitlines()[-1] if error.found.strip() else ''}".strip()


def _unquantized(bench: EvaluationRun, folder: Path, served: pd.DataFrame) -> tuple[pd.DataFrame | None, str]:
    """Answers of the model before its weights were rounded, to some of the pairs."""
    if bench.serving.weights == "f16":  # what is served was not rounded
        return served.assign(variant="unquantized"), ""
    found, missing = _try(lambda: bench.answers("unquantized", folder / UNQUANTIZED, bench.some(COMPARED)))
    return (found[0] if found else None), missing


def _champion_answers(bench: EvaluationRun, model: Path | None, digest: str | None) -> tuple[pd.DataFrame | None, str]:
    """The champion's answers to the ordinary pairs, or why there are none; no champion at all is no problem."""
    if model is None:
        return None, "" if digest is None else f"champion {digest[:12]} has no model file here"
    own = model.parent / SYSTEM
    system = own.read_text(encoding="utf-8") if own.is_file() else None
    ordinary = bench.questions[~bench.questions["unsafe"]]
    found, problem = _try(lambda: bench.answers("champion", model, ordinary, system))
    return (found[0], "") if found else (None, f"the champion can't answer: {problem}")


def _opinions(config: LanguageEvaluation, served: pd.DataFrame, state: Path) -> tuple[Opinions, str]:
    """What the case's judge says of the served answers, or why it says nothing."""
    judge = config.judge
    if judge is None:
        return {}, ""
    found, silent = _try(lambda: judge_opinions(judge, served, state))
    if silent:
        warnings.warn(f"The answers are not judged by {judge.model}: {silent}", stacklevel=2)
    return found or {}, silent


def _bound(bound: Any, overall: dict[str, float], problems: dict[str, str]) -> Criterion:
    found = bound_criterion(bound, overall)
    if problem := problems.get(bound.metric):
        return found.model_copy(update={"note": problem})
    return found.model_copy(update={"repeatable": bound.metric not in TIMINGS})


def _champion(config: LanguageEvaluation, served: pd.DataFrame, rivals: pd.DataFrame | None, problem: str) -> Criterion:
    ordinary = served[~served["unsafe"]]
    return losses_criterion(
        config.champion_gate,
        1.0 - ordinary["exact"].to_numpy(float),
        None if rivals is None else 1.0 - rivals["exact"].to_numpy(float),
        problem,
        clusters=clusters_of(ordinary),
    )


def _above_few_shot(at_least: float, served: pd.DataFrame, few_shot: pd.DataFrame) -> Criterion:
    """By what exact match lies above the base's, to whose benefit JSON amid prose counts."""
    ours, theirs = _same_pairs(served, few_shot)
    return paired_criterion(
        "exact_match_above_few_shot",
        ours["exact"].to_numpy(float) - theirs["exact_anywhere"].to_numpy(float),
        clusters_of(ours),
        at_least=at_least,
    )


def _quantized(at_most: float, served: pd.DataFrame, unquantized: pd.DataFrame | None, missing: str) -> Criterion:
    """What rounding the weights costs in exact match."""
    name = "quantized_loss"
    if unquantized is None:
        return Criterion(name=name, observed=None, required=f"<= {at_most:g}", passed=False, note=missing)
    ours, before = _same_pairs(served, unquantized)
    lost = before["exact"].to_numpy(float) - ours["exact"].to_numpy(float)
    return paired_criterion(name, lost, clusters_of(ours), at_most=at_most)


def _constrained(found: dict[str, float]) -> Criterion:
    observed = found["schema_validity"]
    note = f"{found['n']} answers that the schema constrains"
    return Criterion(
        name="constrained_schema_validity", observed=observed, required=">= 1", passed=observed >= 1, note=note
    )


def _parity(bench: EvaluationRun, folder: Path, bound: float) -> Parity:
    golden = [json.loads(messages) for messages in bench.some(GOLDEN)["messages"].head(GOLDEN)]
    with progress_step("compare serving and training stack"):
        return check_parity(
            bench.base,
            folder / "adapter",
            folder / SERVED,
            bench.talk.prompt.system,
            golden,
            bench.serving,
            bench.talk.context,
            bench.threads,
            bound,
        )


def _same_pairs(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ordinary rows of both that answer the same pairs, in the same order."""
    ours, theirs = (table[~table["unsafe"]].set_index("pair_id", drop=False) for table in (ours, theirs))
    return ours.loc[theirs.index], theirs


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
