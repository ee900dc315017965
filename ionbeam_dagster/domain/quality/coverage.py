"""What of a dataset's columns is tested, and what is not, and why: for people.

Belongs here: words about a plan. Does not belong here: what is tested (plan.py), or what came of it (explain.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from ionbeam_dagster.domain.canonical import columns_of, provider_flag, variable_of
from ionbeam_dagster.domain.quality.limits import Limits
from ionbeam_dagster.domain.quality.plan import METHODS, Plan, Tested


def tested(one: Tested) -> list[str]:
    """The tests that the limits of a column ask for, but for those that every column has."""
    limits = one.limits
    field = limits.resistant.field if limits.resistant else "as told"
    asked = {
        "range": one.range,
        "climatology": limits.climatology,
        "possible at its height" if limits.bounded_by == "height" else "possible under the sun": limits.bounded_by,
        "step": limits.step,
        "spike": limits.spike,
        "persistence": limits.persistence,
        "neighbours" if field == "as told" else f"neighbours ({field})": one.compared,
    }
    return [name for name, given in asked.items() if given]


def not_tested(schema: pa.Schema, limits: Mapping[str, Limits]) -> Iterator[tuple[str, str]]:
    """Each variable of `schema` of which something is not tested, and what and why."""
    plan = Plan.of(schema, limits)
    for column in columns_of(schema, "variable"):
        variable = variable_of(schema.field(column))
        known = limits.get(variable.standard_name)
        if not limits:
            yield column, "not tested: quality control is off"
        elif known is None and column in plan.tested:
            yield column, f"only what its provider says of it ({provider_flag(column)}): no limits are known for it"
        elif known is None:
            yield column, f"not tested: no limits are known for {variable.standard_name}, or it is off"
        elif not pa.types.is_floating(schema.field(column).type):
            yield column, "not tested: its values are no decimal numbers"
        elif variable.method not in METHODS:
            yield column, f"not tested: limits are not those of a {variable.method}"
        elif column not in plan.tested:
            yield column, f"not tested: its unit {variable.cf_unit} is none of {known.unit}"
        elif why := _not_compared(plan, plan.tested[column]):
            yield column, why


def _not_compared(plan: Plan, one: Tested) -> str:
    if not one.compared:
        return "not compared with neighbours: no limits for that are known"
    field = one.limits.resistant.field if one.limits.resistant else ""
    if field == "at sea level" and plan.height is None:
        return "compared with neighbours by its changes alone: no column tells heights (altitude)"
    if field == "vector" and not any(other.name == "wind_speed" for other in plan.tested.values()):
        return "compared with neighbours as a direction alone: there is no wind speed beside it"
    return ""
