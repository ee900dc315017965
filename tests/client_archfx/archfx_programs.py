"""The programs of the specification, as they run: its own text with the corrections that are listed here one by one.

Belongs here: those, and what they leave to their reader (`PRELUDE`). Does not belong here: any check.
"""

# What is wrong in the specification: line, what stands there, what it means, why. A correction with None for a line is
# of each line that has it; the wrong domain belongs to somebody else, who would be sent the passwords.
WRONG_DOMAIN = f"'https://arch.ar{'hfx'}.io'"
CORRECTIONS = [
    (None, WRONG_DOMAIN, "domain", "another domain than the service's; tests go to loopback"),
    (144, "PATCH https", "## PATCH https", "a comment"),
    (162, "c.site", "api.site", "the connection has the name api"),
    (172, "c.machine", "api.machine", "the connection has the name api"),
    (181, "ptype='pl)", "ptype='pl')", "an open quote"),
    (189, "variable='0000-5501)", "variable='0000-5501')", "an open quote"),
    (190, "0000-5001'", "0000-5501'", "the variable is 5501"),
    (194, "parts['device']", "parts['device_slug']", "'device' is only the end of it"),
    (198, "ArchFxDeviceSlug('000a)", "ArchFxDeviceSlug('000a')", "an open quote"),
    (282, "from datetime import datetime", "import datetime", "line 309 says datetime.datetime"),
    (289, "# Create Data Points", "# Create Data Points\nevents = []", "the list is nowhere made"),
]

PROGRAMS = {
    (88, 96): """\
from archfx_cloud.api.connection import Api

c = Api(domain)

ok = c.login(email=args.email, password=password)
if ok:
    # Do something

    c.logout()
""",
    (102, 106): """\
from archfx_cloud.api.connection import Api

c = Api(domain)

c.set_token('big-ugly-token')
""",
    (112, 119): """\
from archfx_cloud.api.connection import Api

c = Api(domain)

ok = c.login(email=args.email, password=password)
if ok:
    token = c.token
    # write out token or store in some secret .ini file
""",
    (129, 152): """\
from archfx_cloud.api.connection import Api

api = Api(domain)
ok = api.login(email='user@example.com', password='my.pass')

## GET https://arch.archfx.io/api/v1/org/
##     Note: Any kwargs passed to get(), post(), put(), delete() will be used as url parameters
api.org.get()

## POST https://arch.archfx.io/api/v1/org/
new = api.org.post({"name": "My new Org"})

## PUT https://arch.archfx.io/api/v1/org/{slug}/
api.org(new["slug"]).put({"about": "About Org"})

## PATCH https://arch.archfx.io/api/v1/org/{slug}/
api.org(new["slug"]).patch({"about": "About new Org"})

## GET https://arch.archfx.io/api/v1/org/{slug}/
api.org(new["slug"]).get()

## DELETE https://arch.archfx.io/api/v1/org/{slug}/
## NOTE: Not all resources can be deleted by users
api.org(new["slug"]).delete()
""",
    (158, 163): """\
# /api/v1/org/
for org in api.org.get()['results']:
   # Pass any arguments as get(foo=1, bar='2'). e.g.
   # /api/v1/site/?org__slug=<slug>
   org_sites = api.site.get(org='{0}'.format(org['slug']))

""",
    (169, 173): """\
# /api/v1/machine/<slug>/devices/
for org in api.machine.get()['results']:
   # /api/v1/machine/<slug>/devices
   associated_devices = api.machine(org['slug']).devices.get()

""",
    (181, 203): """\
parent = ArchFxParentSlug(5, ptype='pl')
assert(str(parent) == 'pl--0000-0005')

device = ArchFxDeviceSlug(10)
assert(str(device) == 'd--0000-0000-0000-000a')


id = ArchFxStreamSlug()
id.from_parts(parent=parent, device=device, variable='0000-5501')
assert(str(id) == 'sl--0000-0005--0000-0000-0000-000a--0000-5501')

parts = id.get_parts()
self.assertEqual(str(parts['parent']), str(parent))
self.assertEqual(str(parts['device_slug']), str(device))
self.assertEqual(str(parts['variable']), '0000-5501')

# Other forms of use
device = ArchFxDeviceSlug('000a')
assert(str(device) == 'd--0000-0000-0000-000a')
device = ArchFxDeviceSlug('d--000a')
assert(str(device) == 'd--0000-0000-0000-000a')
device = ArchFxDeviceSlug(0xa)
assert(str(device) == 'd--0000-0000-0000-000a')
""",
    (236, 265): """\
class MyScript(BaseMain):

    def add_extra_args(self):
        # Add extra positional argument (as example)
        self.parser.add_argument('foo', metavar='foo', type=str, help='RTFM')

    def before_login(self):
        logger.info('-----------')

    def after_login(self):
        # Main function to OVERWITE and do real work
        do_some_real_work(self.api, self.args)

    def login(self):
        # Add extra message welcoming user
        ok = super(MyScript, self).login()
        if ok:
            logger.info('Welcome {0}'.format(self.args.email))
        return ok

    def logout(self):
        # Add extra message to say Goodbye
        super(MyScript, self).logout()
        logger.info('Goodbye!')


if __name__ == '__main__':

    work = MyScript()
    work.main()
""",
    (282, 323): """\
import datetime
from io import BytesIO
from dateutil import parser
from archfx_cloud.api.connection import Api
from archfx_cloud.reports.report import ArchFXDataPoint
from archfx_cloud.reports.flexible_dictionary import ArchFXFlexibleDictionaryReport

# Create Data Points
events = []
reading = ArchFXDataPoint(
    timestamp=parser.parse('2021-01-20T00:00:00.100000Z'),
    stream='0001-5090',
    value=2.0,
    summary_data={'foo': 5, 'bar': 'foobar'},
    raw_data=None,
    reading_id=1000
)
events.append(reading)
reading = ArchFXDataPoint(
    timestamp=parser.parse('2021-01-20T00:00:00.200000+00:00'),
    stream='0001-5090',
    value=3.0,
    summary_data={'foo': 6, 'bar': 'foobar'},
    reading_id=1001
)
events.append(reading)

# Create Report
sent_time = datetime.datetime.utcnow()
report = ArchFXFlexibleDictionaryReport.FromReadings(
    device='d--1234',
    data=events,
    report_id=1003,
    streamer=0xff,
    sent_timestamp=sent_time
)

# Load Report to the Cloud
api = Api(domain)
ok = api.login(email=args.email, password=password)
if ok:
    fp = ("report.mp", BytesIO(report.encode()))
    resp = api.streamer().report.upload_fp(fp=fp, timestamp=sent_time.isoformat())
""",
}

# What the text around the programs says of them.
PRELUDES = {
    (236, 265): """\
import logging
import os
from archfx_cloud.utils.main import BaseMain

logger = logging.getLogger(__name__)
BaseMain.get_domain = lambda self: os.environ['DOMAIN']


def do_some_real_work(api, args):
    print(args.foo, api.org.get()['count'])


""",
    (181, 203): """\
from unittest import TestCase
from archfx_cloud.utils.gid import *

self = TestCase()
""",
}
