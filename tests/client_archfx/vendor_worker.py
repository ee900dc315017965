"""Runs in an environment of its own, with the vendor's package `archfx-cloud`: what it does with what we send it.

Belongs here: calls of that package, one per pickled request on stdin, answered on stdout by what came out, or by the
name of the error. Does not belong here: anything of ours.
"""

import pickle
import struct
import sys

from archfx_cloud.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport
from archfx_cloud.reports.report import ArchFXDataPoint
from archfx_cloud.utils import slugs
from vendor_seen import seen


def report(points, **arguments):
    readings = [ArchFXDataPoint(**point) for point in points]
    return ArchFXFlexibleDictionaryReport.FromReadings(data=readings, **arguments).encode()


def decoded(raw):
    found = ArchFXFlexibleDictionaryReport(raw, signed=False, encrypted=False)
    head = ("origin", "report_id", "sent_timestamp", "origin_streamer", "streamer_selector", "lowest_id", "highest_id")
    return [getattr(found, name) for name in head], [
        (point.stream, point.reading_id, point.timestamp.isoformat(), point.value, point.summary_data, point.raw_data)
        for point in found.visible_data
    ]


def slug(kind, *arguments, **named):
    return seen(getattr(slugs, kind)(*arguments, **named))


def stream(parent, device, variable, start=None):
    found = slugs.ArchFxStreamSlug()
    found.from_parts(parent, device, variable, start)
    return seen(found)


def main():
    calls = {"report": report, "decoded": decoded, "slug": slug, "stream": stream}
    while head := sys.stdin.buffer.read(4):
        name, arguments, named = pickle.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
        try:
            answer = (None, calls[name](*arguments, **named))
        except Exception as error:
            answer = (type(error).__name__, None)
        body = pickle.dumps(answer)
        sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
