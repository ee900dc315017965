"""The platform's errors, as a tree; the command line turns its root into a message and exit code 1, in one place.

    IonbeamError                what went wrong, where, why, and what to do next
    ├── ConfigError             the YAML cannot be used
    ├── SourceError             a source cannot be asked, or gave what cannot be used
    │   ├── HttpError           ... over HTTP                                     (sources/http)
    │   ├── DeadlineExceeded    ... in the time that it is given
    │   ├── NoLongerThere       ... for what it had before
    │   └── NotListed           ... a listing does not name it                    (sources/sensor_community/listing.py)
    ├── StoreError              a store cannot be used, or holds something damaged
    │   ├── FilesError          ... files in folders or S3                        (stores/files.py)
    │   ├── LedgerError         ... the ledger                                    (stores/ledger)
    │   ├── LostPoints          ... observations that were stored and are lost
    │   ├── SegmentError        ... observations in Parquet segments              (stores/timeseries/steady.py)
    │   ├── InfluxError         ... observations in InfluxDB                      (stores/timeseries/influxdb/)
    │   └── StationsError       ... what a person says of stations                (stores/stations.py)
    ├── ExportError             a file could not be written, or did not read back as it should
    ├── PipelineError           a step could not be done on this window
    ├── ServiceError            the web service's configuration cannot be used
    ├── BrokerAway              the message broker does not answer                    (doors/amqp/bridge.py)
    ├── NotTold                 the broker of WIS2 does not take notifications        (wis2/broker.py)
    └── UnknownFile             a file is none that the platform writes, or cannot be read

Belongs here: the errors that cross a wall between two rooms. An error that stays within one room stands there.
Errors of values (`UnitError`, `CanonicalError`) are `ValueError`s of domain/.
"""

from __future__ import annotations


class IonbeamError(Exception):
    """What went wrong; the message names the place, the reason and what to do next."""


class ConfigError(IonbeamError):
    """The configuration cannot be used; the message names the file, the key, the reason and what would be right."""


class SourceError(IonbeamError):
    """A source failed; the message names the source, the place, the reason and, where there is one, a remedy."""


class DeadlineExceeded(SourceError):
    """A window, or what was asked for it, took longer than it may; it is tried again later, and not at once."""


class NoLongerThere(SourceError):
    """A source had observations of a window and no longer has; where they were collected nothing is to be done."""


class StoreError(IonbeamError):
    """A store cannot be used, or holds something damaged; the message names the place, the reason and what to do."""


class LostPoints(StoreError):
    """Observations that were stored are lost: `lacking` of their store names the ingestions to be done again."""


class ExportError(IonbeamError):
    """A file could not be written, or did not read back as it should; nothing was published."""


class PipelineError(IonbeamError):
    """A step could not be done on this window; the message says why and what to do first."""


class ServiceError(IonbeamError):
    """The configuration of the web service cannot be kept or used; the message says why."""


class UnknownFile(IonbeamError):
    """The file is none that the platform writes, or it cannot be read; the message says which."""
