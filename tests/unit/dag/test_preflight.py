"""What is made of SLURM's answers; the answers themselves are those of tests/cluster."""

import logging
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from snaketune.core.errors import UserError
from snaketune.dag.slurm_preflight import choose_status_command, words

LOG = logging.getLogger()
NONE = {"AccountingStorageType": "accounting_storage/none"}


def test_a_complaint_is_one_line_without_the_programs_name() -> None:
    said = "sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed\n\n"
    assert (
        words(CompletedProcess([], 1, "", said)) == "invalid partition specified: nowhere; Batch job submission failed"
    )
    assert words(CompletedProcess([], 7, "", "")) == "exit code 7"


@pytest.mark.parametrize(
    ("cluster", "command"),
    [({"AccountingStorageType": "accounting_storage/slurmdbd"}, "sacct"), (NONE | {"MinJobAge": "300 sec"}, "squeue")],
)
def test_where_no_accounts_are_kept_squeue_is_asked(cluster: dict[str, str], command: str) -> None:
    settings = SimpleNamespace(status_command="sacct")
    choose_status_command(cluster, settings, LOG)
    assert settings.status_command == command


def test_a_slurm_that_forgets_its_jobs_is_refused() -> None:
    with pytest.raises(UserError, match="forgets jobs 60 s after they end"):
        choose_status_command(NONE | {"MinJobAge": "60 sec"}, SimpleNamespace(status_command="sacct"), LOG)
