"""`ionbeam conformance URL`: how the checks of any EDR service are shown.

Does not belong here: the checks themselves (edr/conformance/).
"""

from __future__ import annotations

from typing import Annotated

import typer

from ionbeam_dagster.cli.terminal import console, fail
from ionbeam_dagster.edr.conformance import examine


def conformance(
    url: Annotated[str, typer.Argument(help="The service's landing page, e.g. http://localhost:5000")],
    collections: Annotated[int, typer.Option(help="How many collections are looked at.")] = 3,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also tell what passes.")] = False,
) -> None:
    """Check any EDR service against OGC API EDR, OGC API Features and the EUMETNET profile; tells what fails.

    Ends with 1 where something does. Needs `pip install 'ionbeam-dagster[edr]'`.
    """
    try:
        import covjson_pydantic  # noqa: F401
        import edr_pydantic  # noqa: F401
        import httpx
    except ImportError as error:
        fail(f"conformance needs {error.name}; pip install 'ionbeam-dagster[edr]'")
    passed = failed = 0
    with httpx.Client(follow_redirects=True, timeout=60) as client:
        try:
            client.get(url)
        except httpx.HTTPError as error:
            fail(f"{url} cannot be reached ({error}); is the service running, and the address right?")
        with console.status("asking ...") as progress:
            for result in examine(client, url, collections):
                progress.update(f"{passed + failed} checks done")
                of = f" ({result.collection})" if result.collection else ""
                if result.faults:
                    failed += 1
                    console.print(f"[red]fails[/red]  {result.suite}: {result.name}{of}", highlight=False)
                    for fault in result.faults[:10]:
                        console.print(f"         {fault}", highlight=False, markup=False)
                else:
                    passed += 1
                    if verbose:
                        console.print(f"[green]passes[/green] {result.suite}: {result.name}{of}", highlight=False)
    console.print(f"{passed} checks pass, {failed} fail: {url}")
    if failed:
        raise typer.Exit(1)
