"""The pipeline: the way of an observation on a platform, step by step.

Belongs here: a module a step (collect, ingest, build, export), what all steps stand on (platform), what surrounds them
(quality control, analysis cycles, retention, recovery), and what there is to do (agenda, and reconciliation, which
looks at the files). Does not belong here: who does it, and in which run (orchestration), or how a source, a store or a
format works.
"""
