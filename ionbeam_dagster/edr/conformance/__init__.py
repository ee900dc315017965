"""Does a service keep to OGC API EDR, OGC API Features and the EUMETNET metocean profile?

Belongs here: the checks, which ask any service over HTTP and know nothing of ours. Does not belong here: how they are
shown (cli/conformance.py). Answers are read with covjson-pydantic and edr-pydantic; the tests of our own service run
the same checks.

The checks follow the abstract test suites of OGC 19-086r6 (EDR 1.0 and 1.1) and 17-069r4 (Features, core), and the
rules of the RODEO/EUMETNET profile of in-situ observations. Checks of a query that is not offered are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ionbeam_dagster.edr.conformance import core, features, profile, queries  # noqa: F401  # each adds its checks
from ionbeam_dagster.edr.conformance.asking import CHECKS, Result, Sample, Service, faults_of, sample_of

if TYPE_CHECKING:
    import httpx


def examine(client: httpx.Client, base: str, most: int = 3) -> Iterator[Result]:
    """Run every check on a service and on its first collections, at most `most` of them."""
    service = Service(client, base)
    samples: list[Sample] = []
    try:
        documents = service.json("collections").get("collections", [])
        samples = [sample_of(service, one) for one in documents[:most]]
    except Exception as error:
        yield Result("EDR core", "collections can be read", (f"{type(error).__name__}: {error}",))
    for suite, name, of, function in CHECKS:
        if of == "service":
            yield Result(suite, name, faults_of(function, service))
            continue
        for sample in samples:
            if of in ("collection", "observed") or of in sample.queries:
                if of == "observed" and sample.point is None:
                    continue
                yield Result(suite, name, faults_of(function, service, sample), sample.id)
