"""Health: whether the platform can do its work and does it, and what is to be done where not.

    findings        what a check says, and what follows from many of them
    examination     checks done side by side, none of which may hold up the others
    watch           the same again and again, for processes that stay
    configuration, places, stores, disks, clocks, versions, work, queues, files    the checks, a subject a module
    alerts, messages      who is told of what they find, once it lasts
    metrics, pages        the same for programs, and for a browser
    heard_page, heard_words, report    which stations fell silent, and what there is to say of a day
    logs                  lines as JSON

Belongs here: questions to what is there, each answered with a remedy. Does not belong here: what is due, what fails and
since when (pipeline/agenda says so, and is asked), what only Dagster can tell (orchestration/doctor.py), or how an
answer is shown in a terminal (cli). The doors and the web service are given a `Watch`, and show `pages`.
"""
