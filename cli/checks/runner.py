"""Runs checks in order, and turns what goes wrong while running one into its result."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from cli.checks import certificates, conflicts, control_plane, coverage, data_plane, preflight, sidecars
from cli.checks.model import Check, Outcome, Result, Section, Verdict, fail, skip
from cli.checks.view import View
from kube.errors import ForbiddenError, UnreachableError
from mesh.errors import AutotlsError

BEFORE_INSTALLING: Final = (preflight.SECTION,)
INSTALLED: Final = (
    control_plane.SECTION,
    certificates.SECTION,
    coverage.SECTION,
    sidecars.SECTION,
    data_plane.SECTION,
    conflicts.SECTION,
)


async def run_checks(sections: Sequence[Section], view: View) -> AsyncIterator[Outcome]:
    """The outcome of each check, as soon as it is known."""
    stopped: str | None = None
    for section in sections:
        for check in section.checks:
            result = skip(f"needs {stopped}") if stopped else await _run(check, view)
            if check.fatal and result.verdict in (Verdict.FAIL, Verdict.SKIP) and stopped is None:
                stopped = check.id
            yield Outcome(section.title, check, result)


async def _run(check: Check, view: View) -> Result:
    try:
        return await check.run(view)
    except ForbiddenError as error:
        return skip(f"you may not look: {error.message}", "ask for the right, or for somebody who has it")
    except UnreachableError as error:
        return fail(error.message, "see whether kubectl reaches the cluster: kubectl version")
    except AutotlsError as error:
        return fail(error.message, error.hint)
    except msgspec.MsgspecError as error:
        return fail(f"the API server's answer cannot be read: {error}", "please report it")
