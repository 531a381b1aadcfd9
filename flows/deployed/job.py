"""The process of a deployed run: its command, environment and folder follow from the run's parameters alone."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.workers.process import ProcessJobConfiguration

from flows.deployed.checkout import checkout_commit, checkout_environment, requested_commit, require_published
from tasks.core.errors import InputError
from tasks.core.settings import ROOT, settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

ENGINE = ("-m", "prefect.engine")


class Job(ProcessJobConfiguration):
    """A run's process. Work pool, deployment and the creator of the run can set nothing of it."""

    run_command: ClassVar[str] = shlex.join([sys.executable, *ENGINE])

    @classmethod
    async def from_template_and_values(
        cls, base_job_template: dict[str, Any], values: dict[str, Any], client: Any = None
    ) -> Job:
        """Accept no job variables.

        Raises: InputError when there are some: ignoring them would start another run than was requested.
        """
        if values:
            raise InputError(
                "A run can't have job variables.",
                where="job_variables",
                found=", ".join(sorted(values)),
                allowed="parameters alone",
                todo="Leave them out. The parameter commit names the code and cases of a run.",
            )
        return cls()

    @classmethod
    async def resolve_for_flow_run(cls, flow_run: FlowRun, **more: Any) -> Job:
        """Build a run's process.

        Raises: InputError for a commit that is not published; Unavailable when git fails.
        """
        job = await super().resolve_for_flow_run(flow_run, **more)
        if commit := requested_commit(flow_run.parameters):
            job.env, job.working_dir = await asyncio.to_thread(_checkout, commit, job.env)
        return job

    def prepare_for_flow_run(self, *arguments: Any, **more: Any) -> None:
        self.command = self.run_command
        super().prepare_for_flow_run(*arguments, **more)


def _checkout(commit: str, variables: dict[str, str | None]) -> tuple[dict[str, str | None], Path]:
    """The environment and the folder of a run of a commit."""
    config = settings()
    require_published(commit, ROOT, config.git_branch)
    tree = checkout_commit(commit, ROOT, config.state)
    return {**variables, **checkout_environment(tree, config)}, tree
