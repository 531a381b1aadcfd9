"""What the command line suggests for a verb that it does not have: a typing error's right form, and never more."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

OTHER_NAMES = {"delete": "remove", "rm": "remove", "uninstall": "remove", "score": "predict"}
LIKENESS = 0.8  # of a typing error: `delete` is not meant to be `release`, which trains


class Verbs(TyperGroup):
    """The verbs of `driftline`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Fail for an unknown verb, with the nearest one if one is near."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            shown = [name for name, command in self.commands.items() if not command.hidden]
            near = [OTHER_NAMES[word]] if word in OTHER_NAMES else get_close_matches(word, shown, 1, LIKENESS)
            ctx.fail(f"No such command {word!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)
