"""What a language model is made from and how it is asked, in training, evaluation and serving."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.data.config import ChatSpec
from tasks.data.results import BaseModelFiles
from tasks.train.config import Serving


@dataclass(frozen=True)
class LanguageSpec:
    """Base model, chat (prompt, answer format and context) and serving of a language case."""

    base: BaseModelFiles
    chat: ChatSpec
    serving: Serving
