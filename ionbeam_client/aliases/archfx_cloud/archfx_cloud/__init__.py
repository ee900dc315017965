"""The import name of ArchFX's package for `ionbeam_client.archfx`.

Belongs here: names of modules. Does not belong here: code, except for the refusal to stand beside the vendor's package.
"""

from importlib.metadata import distributions

_vendors = next(iter(distributions(name="archfx-cloud")), None)
if _vendors is not None:
    raise ImportError(
        f"archfx-cloud {_vendors.version}, the vendor's package, is installed, and has the same import name as "
        "ionbeam-archfx-cloud: uninstall one of them (pip uninstall archfx-cloud), or import ionbeam_client.archfx"
    )
