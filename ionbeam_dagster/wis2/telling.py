"""Telling others what is given away: one process at a time, each message after its file, and noted once it arrived.

Belongs here: the order in which things are done, and what is kept after a failure. Does not belong here: what is to be
given (giving.py), or the connection (broker.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event

from ionbeam_dagster.config.wis2 import Wis2Settings
from ionbeam_dagster.domain.windows import EPOCH, Window
from ionbeam_dagster.errors import IonbeamError, PipelineError
from ionbeam_dagster.matters import Matter
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.ledger.holding import Job
from ionbeam_dagster.stores.ledger.notices import Notice
from ionbeam_dagster.wis2.broker import Publisher
from ionbeam_dagster.wis2.describing import record_due
from ionbeam_dagster.wis2.giving import (
    AT_ONCE,
    Due,
    Giver,
    due,
    read_bytes,
    read_json,
    remove_others,
    settings_of,
    windows_given,
)
from ionbeam_dagster.wis2.keeping import remove_old
from ionbeam_dagster.wis2.notification import Geometry
from ionbeam_dagster.wis2.places import MESSAGE, RECORD, data_id, place_of_message, record_id

_LOG = logging.getLogger(__name__)
RECENT = timedelta(days=2)
"""Windows that begin within that time are looked at every few seconds."""
_OF_ALL = 20
"""All windows are looked at again after so many times the seconds that it took, and after ten minutes at the latest."""
_LATEST = 600.0
_PAUSE = 3.0
_JOB = "wis2"


@dataclass(slots=True)
class Turn:
    """How much was told, and what of it failed, by its name with the reason; `left` are notices on datasets that are
    given away no longer."""

    told: int = 0
    left: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class ToldElsewhere(PipelineError):
    """Another process tells what is due."""


def publish(platform: Platform) -> Turn:
    """Tell others all that they were not told of. Raises NotTold where the broker does not answer, and ToldElsewhere
    where another process does it."""
    wis2 = settings_of(platform)
    with closing(platform.ledger.job(_JOB)) as job:
        if not job.acquire():
            raise ToldElsewhere(
                "another process tells what is given away; leave all that is due to it, or end it first"
            )
        return Teller(platform, wis2, job).turn(EPOCH)


def publish_forever(platform: Platform, stop: Event) -> None:
    """The same until `stop` is set, within seconds of each export; one process of all does it, others stand by."""
    wis2, matter = settings_of(platform), Matter(_LOG)
    while not stop.is_set():
        with closing(platform.ledger.job(_JOB)) as job:
            try:
                if job.acquire():
                    _tell_while_ours(Teller(platform, wis2, job), matter, stop)
            except (IonbeamError, OSError) as error:
                matter.goes_wrong(type(error).__name__, f"the ledger: {error}")
        stop.wait(_PAUSE)


def _tell_while_ours(teller: Teller, matter: Matter, stop: Event) -> None:
    whole_at = 0.0
    while teller.job.is_ours and not stop.is_set():
        began = time.monotonic()
        whole = began >= whole_at
        try:
            turn = teller.turn(EPOCH if whole else teller.platform.now() - RECENT)
            for what, why in turn.failed.items():
                matter.goes_wrong(what, f"{what} is not told: {why}; it is tried again")
            if not turn.failed:
                matter.goes_well("all that is given away is told again")
            if turn.told:
                _LOG.info("%d notifications told", turn.told)
            if whole:
                whole_at = began + min(_OF_ALL * (time.monotonic() - began), _LATEST)
        except (IonbeamError, OSError) as error:
            matter.goes_wrong(type(error).__name__, f"{error}; what is due is told later")
        stop.wait(_PAUSE)


class Teller:
    """Tells, as long as the job is this process's."""

    def __init__(self, platform: Platform, wis2: Wis2Settings, job: Job) -> None:
        self.platform, self.job = platform, job
        self._wis2 = wis2
        self._giver = Giver(platform, wis2)

    def turn(self, since: datetime) -> Turn:
        """Tell what is open, and all exports of windows that begin at `since` or later. One that fails is due as
        before, and holds up no other."""
        turn = Turn()
        self._tell(turn, self.platform.ledger.notices.open())
        for dataset in self._wis2.datasets:
            if since == EPOCH:
                self._tell(turn, self._record(dataset, []))
            for some in due(self.platform, self._wis2, dataset, since):
                self._tell(turn, self._given(turn, dataset, some))
        if since == EPOCH and (gone := remove_old(self.platform, self._wis2, self.platform.now())):
            _LOG.info("%d files of long ago are given away no longer (wis2.keep_for)", gone)
        return turn

    def _given(self, turn: Turn, dataset: str, some: Sequence[Due]) -> list[Notice]:
        """The notices on some exports, after that on their dataset's record, where there is to be another one."""
        given = []
        for one in some:
            try:
                if self.job.is_ours and (notice := self._giver.give(one)) is not None:
                    given.append(notice)
            except (IonbeamError, OSError, ValueError) as error:
                turn.failed[data_id(self._wis2, dataset, one.made.format, one.made.window)] = str(error)
        messages = [read_json(self.platform.files, notice.place) for notice in given]
        where = [message["geometry"] for message in messages if message["geometry"] is not None]
        return [*(self._record(dataset, where) if where else []), *given]

    def _record(self, dataset: str, where: Sequence[Geometry]) -> list[Notice]:
        record = record_due(self.platform, self._wis2, dataset, where) if self.job.is_ours else None
        return [] if record is None else [record]

    def _tell(self, turn: Turn, notices: Sequence[Notice]) -> None:
        there = [notice for notice in notices if self._can_be_told(turn, notice)]
        if not there:
            return
        with Publisher(self._wis2.broker) as publisher:
            for first in range(0, len(there), AT_ONCE):
                if self.job.is_ours:
                    self._publish(turn, publisher, there[first : first + AT_ONCE])

    def _publish(self, turn: Turn, publisher: Publisher, notices: Sequence[Notice]) -> None:
        files = self.platform.files
        with_topics = [(self._topic(notice), read_bytes(files, notice.place)) for notice in notices]
        for notice, fault in zip(notices, publisher.publish(with_topics), strict=True):
            if fault:
                turn.failed[notice.data_id] = f"the broker does not have it ({fault}); see in its log why"
                continue
            remove_others(files, place_of_message(notice.place), notice.place.removesuffix(MESSAGE))
            self.platform.ledger.notices.note_told(notice, self.platform.now())
            turn.told += 1

    def _topic(self, notice: Notice) -> str:
        dataset, _, what = notice.of.partition("/")
        return self._wis2.metadata_channel if what == RECORD else self._wis2.channel(dataset)

    def _can_be_told(self, turn: Turn, notice: Notice) -> bool:
        """Whether a notice's dataset is still given away, and its file and message are there. Where they are not, the
        export is given anew."""
        if notice.of.partition("/")[0] not in self._wis2.datasets:
            turn.left += 1
            return False
        files = self.platform.files
        file = [] if notice.relation == "deletion" else [notice.place.removesuffix(MESSAGE)]
        if all(files.exists(one) for one in (notice.place, *file)):
            return True
        _LOG.warning("%s: %s is gone, and is given anew", notice.data_id, notice.place.removesuffix(MESSAGE))
        self.platform.ledger.notices.keep(replace(notice, number=0, told=self.platform.now()))
        return False


def tell_again(platform: Platform, dataset: str, range: Window) -> int:
    """Make the notices on the windows that begin in a range, and on their record, open again; says how many."""
    wis2 = settings_of(platform)
    if dataset not in wis2.datasets:
        raise PipelineError(f"{dataset} is not given away (wis2.datasets); {', '.join(wis2.datasets)} is")
    found = notices_on(platform, wis2, dataset, range)
    for notice in found:
        platform.ledger.notices.keep(replace(notice, told=None))
    return len(found)


def notices_on(platform: Platform, wis2: Wis2Settings, dataset: str, range: Window) -> list[Notice]:
    """The notices on the record of a dataset, and on its windows that begin in a range, in order."""
    windows = [one for one in windows_given(platform, wis2, dataset, range.start) if one.start < range.end]
    ids = [data_id(wis2, dataset, format, window) for window in windows for format in wis2.datasets[dataset].formats]
    found = platform.ledger.notices.on([record_id(wis2, dataset), *ids])
    return [found[id] for id in (record_id(wis2, dataset), *ids) if id in found]
