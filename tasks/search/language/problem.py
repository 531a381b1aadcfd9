"""A language case as a search sees it: arms of growing cost, which answer questions that the gates never use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.code_digest import cache_key
from tasks.core.config import Section
from tasks.core.files import file_digest
from tasks.data.config import Model
from tasks.data.language.splits import DEVELOPMENT
from tasks.evaluate.language.metrics import clusters_of
from tasks.language.messages import SYSTEM
from tasks.release.config import Price
from tasks.search.language.arm import Arm
from tasks.search.language.bench import Bench, LanguageTask, embed_questions, merged
from tasks.search.language.forecast import Forecast
from tasks.search.language.prompt_space import COUNTS, Example
from tasks.search.language.questions import SEARCHED, searched_pairs
from tasks.search.language.space import OWN, Choices, LanguageSpace
from tasks.search.problem import Combination, Complete, Configuration, Cost, Scores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from optuna import Trial

    from tasks.search.results import TrialRecord

SMALLEST, GROWTH = 8, 3  # questions of the first rung, and how much longer each next one is


@dataclass
class LanguageProblem:
    """The arms of a language case. Their answers are remembered by digest: what is measured again costs no call."""

    task: LanguageTask
    space: LanguageSpace
    tuned: Path | None = None  # the model of a candidate that is tuned as the case says, if there is one
    most_call_cost: float | None = None  # the most money of a call

    @property
    def case(self) -> str:
        return self.task.origin.case

    @cached_property
    def key(self) -> str:
        spec, space = self.task.spec, self.space
        return cache_key(
            __name__,
            {
                "spec": [spec.base.digest, spec.definitions_digest, spec.serving.digest, spec.chat.context],
                "knowledge": [space.knowledge.digest, spec.knowledge.index.digest]
                if space.knowledge and spec.knowledge
                else [],
                "space": [list(space.prompts.instructions), dict(space.prompts.texts), space.layers, space.weights],
                "part": ["prompt" if space.is_prompt_only else "", file_digest(self.tuned) if self.tuned else ""],
                "tuning": self.task.tuning.digest if self.task.tuning else "",
                "models": {
                    name: [other.files.digest, other.model.context, other.price.digest]
                    for name, other in self.task.others.items()
                },
                "data": self.task.snapshot.digest,
                "loss": [self.metric, self.task.scorers],
            },
        )

    @property
    def metric(self) -> str:
        return self.task.loss

    @property
    def rungs(self) -> Sequence[str]:
        return [f"questions {start + 1} to {stop}" for start, stop in self._blocks]

    @property
    def workers(self) -> int:
        """An engine of this machine takes all its cores; a server behind an address answers several at once."""
        return 4 if self.task.spec.base.upstream else 1

    def prepare(self) -> None:
        embed_questions(self.task, self._questions)

    def start(self) -> Configuration:
        """The case as it is; before it was ever tuned, its prompt."""
        own = self.space.own
        if own["layer"] == "tuned" and self.tuned is None:
            return {"layer": "prompt"}
        return own

    def first(self) -> Sequence[Mapping[str, Any]]:
        """Near the case as it is what takes no model, then each layer as the case has it, then what usually helps."""
        if self.space.is_prompt_only:
            seeds = list(self._single_changes())
            return [{_parameter(seed, name): value for name, value in seed.items()} for seed in seeds]
        near: list[Choices] = [
            {"layer": "retrieval", **changed}
            for changed in (
                *({"passages": 3}, {"passages": 8}, {"method": "vectors"}, {"method": "words"}),
                *({"word_weight": 0.3}, {"word_weight": 0.7}),
            )
        ]
        layers: list[Choices] = [{"layer": each} for each in ("prompt", "examples", "retrieval", "tuned", "base")]
        others: list[Choices] = [
            {"layer": layer, "model": name, **({"answer_by": "model"} if layer == "retrieval" else {})}
            for name in self.space.models
            for layer in ("prompt", "retrieval")
        ]
        usual: list[Choices] = [
            *others,
            {"layer": "retrieval", "answer_by": "model"},
            {"layer": "examples", "examples": 4},
            {"layer": "examples", "instruction": 1},
        ]
        seeds = [self._filled(each) for each in (*near, *layers, *usual) if each["layer"] in self.space.reachable]
        return [{_parameter(seed, name): value for name, value in seed.items()} for seed in seeds]

    def suggest(self, trial: Trial) -> Configuration:
        choices: Choices = {"layer": trial.suggest_categorical("layer", list(self.space.reachable))}
        while new := next((name for name in self.space.options(choices) if name not in choices), None):
            options = self.space.options(choices)[new]
            choices[new] = trial.suggest_categorical(_parameter(choices, new), options)
        return self._canonical(choices)

    def refusal(self, configuration: Configuration) -> str:
        arm = self.space.arm(configuration)
        return self._forecast.shortage(arm) if arm.is_tuned and not self._exists(arm) else ""

    def estimate(self, configuration: Configuration, rung: int) -> Cost:
        arm = self.space.arm(configuration)
        start, stop = self._blocks[rung]
        return self._forecast.cost(arm, stop - start, first=rung == 0, exists=self._exists(arm))

    def measure(self, configuration: Configuration, rung: int) -> Scores:
        import numpy as np

        arm = self.space.arm(configuration)
        bench = Bench(self.task, arm, self.tuned if self._exists(arm) else None)
        start, stop = self._blocks[rung]
        answered = bench.answer(self._questions.iloc[start:stop])
        losses: np.ndarray = np.array(answered.losses, np.float64)
        return Scores(
            losses=losses,
            calls=answered.calls,
            money=answered.money,
            call_seconds=answered.seconds,
            call_cost=answered.price,
            size=bench.size,
            metrics={} if rung else {"seconds_to_make": bench.seconds_to_make},
        )

    def exceeded(self, record: TrialRecord) -> str:
        if record.arm == "base":
            return "no case answers without a prompt; it shows what the prompt is worth"
        most = self.most_call_cost
        if most is None or record.call_cost <= most:
            return ""
        return f"a call costs {record.call_cost:.4g}, at most {most:g} is allowed"

    def combine(self, trials: Sequence[Complete]) -> Combination | None:
        return None  # two ways to answer make no third

    def clusters(self, rung: int) -> Sequence[str] | None:
        start, stop = self._blocks[rung]
        return clusters_of(self._questions.iloc[start:stop])

    def arm(self, configuration: Configuration) -> str:
        return str(configuration["layer"])

    def describe(self, configuration: Configuration) -> str:
        return self.space.arm(configuration).title

    @property
    def owned(self) -> dict[str, Sequence[str]]:
        """Keys of sections that a change replaces or removes."""
        return {
            "prompt": ("system", "messages"),
            "model": tuple(Model.model_fields),
            "price": tuple(Price.model_fields),
        }

    def as_change(self, configuration: Configuration) -> dict[str, dict[str, Any] | None]:
        """Keys of sections of case.yaml, each with its whole value; a section that is None goes."""
        arm = self.space.arm(configuration)
        change: dict[str, dict[str, Any] | None] = {}
        if arm.layer == "base":  # no case answers without a prompt, so `exceeded` keeps it from being chosen
            return change
        if list(arm.messages) != self.space.prompts.messages(self.space.prompts.start):
            change["prompt"] = self._prompt_section(arm)
        knowledge, tuning = self.space.knowledge, self.task.tuning
        if knowledge is not None and (not arm.passages or arm.knowledge):
            change["knowledge"] = _whole(knowledge, arm.knowledge) if arm.passages else None
        if tuning is not None and (not arm.is_tuned or arm.train):
            change["train"] = _whole(tuning, arm.train) if arm.is_tuned else None
        if other := self.task.others.get(arm.model):
            change["model"] = other.model.model_dump(mode="json", exclude_unset=True, exclude={"price"})
            if other.price != self.task.price:
                change["price"] = other.price.model_dump(mode="json", exclude_unset=True)
        if arm.weights:
            change["serve"] = {"weights": arm.weights}
        return change

    @cached_property
    def _pairs(self) -> tuple[pd.DataFrame, list[Example]]:
        return questions_of(self.task)

    @property
    def _questions(self) -> pd.DataFrame:
        return self._pairs[0]

    @cached_property
    def _blocks(self) -> list[tuple[int, int]]:
        total, stops, size = len(self._questions), [], SMALLEST
        while size < total:
            stops.append(size)
            size *= GROWTH
        stops.append(total)
        return list(zip([0, *stops], stops, strict=False))

    @cached_property
    def _forecast(self) -> Forecast:
        return Forecast(self.task)

    def _exists(self, arm: Arm) -> bool:
        """Whether what this arm would tune exists."""
        return self.tuned is not None and arm.is_tuned and not arm.train and not arm.weights

    def _single_changes(self) -> Iterator[Choices]:
        """The prompt with one change: examples, an instruction, a schema, a place of the passages."""
        own = self.space.own
        for layer in self.space.reachable:
            start = {"layer": layer}
            for count in [] if layer == "prompt" else COUNTS:
                if count in self.space.options(start).get("examples", []):
                    yield self._filled({**start, "examples": count})
            if layer == own["layer"]:
                for name, options in self.space.options(start).items():
                    yield from (self._filled({**start, name: each}) for each in options[1:] if name != "examples")

    def _filled(self, choices: Mapping[str, Any]) -> Choices:
        """All choices: the case's own where none is named."""
        filled: Choices = dict(choices)
        while new := {name: each[0] for name, each in self.space.options(filled).items() if name not in filled}:
            filled |= new
        return filled

    def _canonical(self, choices: Choices) -> Configuration:
        """Only what differs from the case's own, so that equal arms have equal configurations."""
        options = self.space.options(choices)
        changed = {name: choices[name] for name, each in options.items() if choices[name] != each[0]}
        if choices["layer"] == "examples" and choices["examples"] != OWN:
            changed["examples"] = choices["examples"]
        return {"layer": choices["layer"], **changed}

    def _prompt_section(self, arm: Arm) -> dict[str, Any]:
        own = self.space.prompts.prompt
        settings = own.model_dump(mode="json", exclude_defaults=True, exclude={"system", "messages"})
        if own.name and own.tests:  # beside its file; else they stand in case.yaml, and stay
            settings["tests"] = own.tests.model_dump(mode="json", exclude_defaults=True)
        messages = [dict(each) for each in arm.messages]
        if [each["role"] for each in messages] == [SYSTEM] and "{{" not in messages[0]["content"]:
            return {"system": messages[0]["content"], **settings}
        return {"messages": messages, **settings}


def questions_of(task: LanguageTask) -> tuple[pd.DataFrame, list[Example]]:
    """The questions that all arms answer, and the examples that prompts may show; a tuned model learned from neither.

    Raises: DataError when there are too few.
    """
    if task.tuning is not None and not task.practises:
        return searched_pairs(task.origin.case, task.pairs, ("validation", DEVELOPMENT), learned=("train",))
    return searched_pairs(task.origin.case, task.pairs, SEARCHED)


def _whole(section: Section, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changed keys of a section with their whole values."""
    own = section.model_dump(mode="json", exclude_unset=True)
    return {name: merged(own, dict(changes))[name] for name in changes}


def _parameter(choices: Mapping[str, Any], name: str) -> str:
    """Optuna's name of a choice: the options of one name differ between layers."""
    return name if name == "layer" else f"{choices['layer']}.{name}"
