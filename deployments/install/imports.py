"""Imports the twelve packages that Driftline is made of, and says in one line which can't be imported, and why."""

import contextlib
import importlib
import os
import sys
import warnings

TWELVE = (
    "prefect.server.api.server",  # with all that a server needs: `prefect` alone imports next to nothing
    "dvc.repo",
    "mlflow",
    "great_expectations",
    "feast",
    "torch",
    "transformers",
    "peft",
    "trl",
    "sklearn",
    "bentoml",
    "evidently",
)


def failures(names=TWELVE):
    """One line for each package that can't be imported."""
    lines = []
    for name in names:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user reads one line
            first = (str(error).splitlines() or [""])[0]
            lines.append(f"{name} can't be imported: {type(error).__name__}: {first}")
    return lines


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    wrong = failures(sys.argv[1:] or TWELVE)
    hint = "The environment is broken; make clean, then make setup. Still so? Please report it with this line."
    sys.exit(f"{'; '.join(wrong)}. {hint}" if wrong else 0)
