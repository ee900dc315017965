"""A client of ArchFX Cloud's web interface, and of every service that speaks it, such as an Ionbeam platform's door.

Belongs here: what a device or a script needs: `api` (requests and log-in), `reports` (readings, encoded once and safe
to send again), `utils` (ids, and the frame of a script). Does not belong here: anything of the platform, or of the AMQP
client; neither is loaded. The names are those of ArchFX's own package, whose programs run with this one.
"""

from importlib.util import find_spec


def needs(*libraries: str) -> None:
    """Raises ImportError, with what to install, where a library is missing. Ids (`utils.slugs`) need none."""
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise ImportError(f"ionbeam_client.archfx needs {', '.join(missing)}: pip install 'ionbeam-client[archfx]'")
