"""The arms of a language case: prompts, examples, retrieval, adapters and number formats, as choices by name."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tasks.core.config import digest_of
from tasks.knowledge.config import Knowledge
from tasks.search.language.arm import LAYERS, Arm, Layer
from tasks.search.language.prompt_space import COUNTS, PLACES, PromptSpace, Variant
from tasks.train.config import Tuning

Choices: TypeAlias = dict[str, Any]
PASSAGES = (1, 2, 3, 5, 8, 12)
SPLITS = (96, 128, 160, 224)  # tokens of a passage
WORD_WEIGHTS = (0.5, 0.3, 0.7)  # of words in a hybrid search
RANKS, RATES = (4, 8, 16, 32), (0.5, 1.0, 2.0)  # of LoRA; learning rates as multiples of the case's
PREFERENCE = {"batch": 4, "pairs": 64}  # of a stage that the case does not have
FORMATS = ("q8_0", "q4_1", "f16")
SELECTIONS = 3  # other choices of equally many examples
OWN = "own"  # the case's own value


@dataclass(frozen=True)
class LanguageSpace:
    """What may be chosen. A choice that is left out is the case's own."""

    prompts: PromptSpace
    knowledge: Knowledge | None = None
    tuning: Tuning | None = None
    layers: int = 0  # of the base model
    weights: str = ""  # number format of the served weights
    has_schema: bool = False
    models: Sequence[str] = ()  # names of other base models
    is_prompt_only: bool = False  # all but the prompt stays as the case has it

    @property
    def reachable(self) -> tuple[Layer, ...]:
        """The layers that this case can have, the cheapest first."""
        if self.is_prompt_only and self.own["layer"] in ("retrieval", "tuned"):
            return (self.own["layer"],)
        missing: set[Layer] = {"base"} if self.is_prompt_only else set()
        if self.knowledge is None:
            missing.add("retrieval")
        if self.tuning is None:
            missing.add("tuned")
        if not self.prompts.pool and not self.prompts.has_examples:
            missing.add("examples")
        return tuple(layer for layer in LAYERS if layer not in missing)

    @property
    def own(self) -> Choices:
        """The case's own arm."""
        if self.tuning or self.knowledge:
            return {"layer": "tuned" if self.tuning else "retrieval"}
        return {"layer": "examples" if self.prompts.has_examples else "prompt"}

    def options(self, choices: Mapping[str, Any]) -> dict[str, list[Any]]:
        """What else may be chosen after these choices, by name; the first option is the case's own."""
        layer = choices["layer"]
        if self.is_prompt_only:
            return self._prompting(choices)
        models = {"model": [OWN, *self.models]} if self.models else {}
        if layer == "base":
            return models
        found: dict[str, list[Any]] = {}
        if layer in ("retrieval", "tuned") and self.knowledge is not None:
            found |= self._retrieval(self.knowledge, choices)
        if layer == "tuned":
            found.pop("answer_by", None)  # the model is tuned to answer
            return found | self._tuning()
        if layer == "retrieval" and choices.get("answer_by", self._answer_by) == "extract":
            return found  # no model answers
        decoding = {"decoding": ["free", "constrained"]} if self.has_schema else {}
        return found | models | self._prompting(choices) | decoding

    def arm(self, choices: Mapping[str, Any]) -> Arm:
        """The arm of these choices."""
        layer: Layer = choices["layer"]
        title = ", ".join(f"{name} {value}" for name, value in choices.items() if name != "layer") or "as the case is"
        if layer == "base":
            return Arm(layer=layer, title="no prompt", model=_other(choices))
        messages = self.prompts.messages(self._variant(choices))
        retrieves = layer in ("retrieval", "tuned") and self.knowledge is not None
        return Arm(
            layer=layer,
            title=title,
            messages=tuple(messages),
            model=_other(choices),
            passages=retrieves,
            knowledge=self._changed(choices) if retrieves else {},
            train=self._train(choices) if layer == "tuned" else {},
            weights=str(choices.get("weights", "")),
            constrained=choices.get("decoding") == "constrained",
        )

    @property
    def _answer_by(self) -> str:
        return self.knowledge.answer_by if self.knowledge else "model"

    def _prompting(self, choices: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The choices of a prompt."""
        layer, prompts = choices["layer"], self.prompts
        found: dict[str, list[Any]] = {}
        if len(instructions := prompts.valid_instructions) > 1:
            found["instruction"] = instructions
        if prompts.texts.get("schema"):
            found["schema"] = [False, True]
        counts: list[Any] = [each for each in COUNTS if each <= len(prompts.pool)]
        if layer != "examples" or prompts.has_examples:
            counts.insert(0, OWN)
        if layer != "prompt" and len(counts) > (counts[0] == OWN):
            found["examples"] = counts
            if choices.get("examples", OWN) != OWN:
                found["selection"] = list(range(SELECTIONS))
                found["order"] = ["as chosen", "reversed"]
        if layer == "retrieval" or (layer == "tuned" and self.knowledge is not None):
            found["place"] = [OWN, *PLACES]
        return found

    def _retrieval(self, knowledge: Knowledge, choices: Mapping[str, Any]) -> dict[str, list[Any]]:
        found = {
            "answer_by": _first(knowledge.answer_by, ("extract", "model")),
            "passages": _first(knowledge.passages, PASSAGES),
            "method": _first(knowledge.method, ("hybrid", "words", "vectors")),
            "split": _first(knowledge.split.tokens, SPLITS),
        }
        if choices.get("method", knowledge.method) == "hybrid":
            found["word_weight"] = _first(knowledge.word_weight, WORD_WEIGHTS)
        return found

    def _tuning(self) -> dict[str, list[Any]]:
        tuning = self.tuning
        assert tuning is not None
        upper = [round(self.layers * share) for share in (0.5, 1.0)] if self.layers else []
        return {
            "rank": _first(tuning.lora.rank, RANKS),
            "layers": _first(tuning.lora.layers or self.layers, upper),
            "rate": _first(1.0, RATES),
            "preference": _first(tuning.stages.preference is not None, (False, True)),
            "weights": _first(self.weights, FORMATS),
        }

    def _variant(self, choices: Mapping[str, Any]) -> Variant:
        count = choices.get("examples", OWN)
        examples: tuple[int, ...] | None = None
        if choices["layer"] == "prompt":
            examples = ()
        elif count != OWN:
            chance = random.Random(digest_of([count, choices.get("selection", 0)]))
            chosen = tuple(chance.sample(range(len(self.prompts.pool)), count))
            examples = chosen[::-1] if choices.get("order") == "reversed" else chosen
        place = choices.get("place", OWN)
        return Variant(
            instruction=choices.get("instruction", 0),
            schema=bool(choices.get("schema")),
            examples=examples,
            place="" if place == OWN else place,
        )

    def _changed(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of `knowledge` that these choices change."""
        assert self.knowledge is not None
        own = {name: getattr(self.knowledge, name) for name in ("answer_by", "passages", "method", "word_weight")}
        wanted = {**choices, **({"answer_by": "model"} if choices["layer"] == "tuned" else {})}
        changed = {name: wanted[name] for name in own if wanted.get(name, own[name]) != own[name]}
        tokens = choices.get("split", self.knowledge.split.tokens)
        return changed | ({"split": {"tokens": tokens}} if tokens != self.knowledge.split.tokens else {})

    def _train(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of `train` that these choices change."""
        tuning = self.tuning
        assert tuning is not None
        changed: dict[str, Any] = {}
        lora = {name: choices[name] for name in ("rank", "layers") if name in choices}
        own = {"rank": tuning.lora.rank, "layers": tuning.lora.layers or self.layers}
        if lora := {name: value for name, value in lora.items() if value != own[name]}:
            changed["lora"] = lora
        stages: dict[str, Any] = {}
        if (times := choices.get("rate", 1.0)) != 1.0:
            stages["sft"] = {"learning_rate": tuning.stages.sft.learning_rate * times}
        has_preference = tuning.stages.preference is not None
        if choices.get("preference", has_preference) != has_preference:
            stages["preference"] = None if has_preference else PREFERENCE
        return changed | ({"stages": stages} if stages else {})


def _other(choices: Mapping[str, Any]) -> str:
    """The name of another base model; empty for the case's."""
    name = str(choices.get("model", OWN))
    return "" if name == OWN else name


def _first(own: Any, others: Sequence[Any]) -> list[Any]:
    """The options, the case's own first."""
    return [own, *(each for each in others if each != own)]
