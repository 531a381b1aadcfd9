"""The pages of Data Docs, with templates compiled once per process: compiling takes most of a page's time."""

from __future__ import annotations

from typing import Any, ClassVar

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import Environment


class PageView(DefaultJinjaPageView):
    shared: ClassVar[Environment | None] = None

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        type(self).shared = self.env = type(self).shared or self.env


class IndexView(DefaultJinjaIndexPageView):
    shared: ClassVar[Environment | None] = None

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        type(self).shared = self.env = type(self).shared or self.env
