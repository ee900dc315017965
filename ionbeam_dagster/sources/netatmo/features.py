"""E-SOH's messages, one observed value each: from lines of JSON to long rows, and from long to wide ones.

Belongs here: the message's form (a GeoJSON-like Feature, version v4.0), what is wrong with one, which of several
messages on one value counts. Does not belong here: where lines come from (journal.py, archive.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import polars as pl
import pyarrow as pa

from ionbeam_client.cf import UnitError
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.netatmo.parameters import DESCRIBED, EsohConfig, declared_conversion, flag_column

_PATHS = {
    "type": "$.type",
    "platform": "$.properties.platform",
    "datetime": "$.properties.datetime",
    "pubtime": "$.properties.pubtime",
    "lat": "$.geometry.coordinates.lat",
    "lon": "$.geometry.coordinates.lon",
    "level": "$.properties.level",
    "method": "$.properties.function",
    "period": "$.properties.period",
    "code": "$.properties.quality_code",
    "standard_name": "$.properties.content.standard_name",
    "unit": "$.properties.content.unit",
    "value": "$.properties.content.value",
    "encoding": "$.properties.content.encoding",
}
_TIME = pl.Datetime("us", "UTC")
OBSERVED: dict[str, pl.DataType] = {
    "platform": pl.String(), "datetime": _TIME, "lat": pl.Float64(), "lon": pl.Float64(), "parameter": pl.String(),
    "value": pl.Float64(), "unit": pl.String(), "code": pl.Int8(), "pubtime": _TIME,
}  # fmt: skip
"""The columns of long rows. `pubtime` is null where a message does not tell it: such a one is older than any other."""


def read_features(lines: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Long rows (the columns of OBSERVED, and ``line``, the place in `lines`) and what could not be read.

    What could not be read has ``line``, ``text`` (as it came) and ``reason``. Every line that is not
    blank is in one of the two; numbers may be texts.
    """
    if lines.is_empty():
        return pl.DataFrame(schema=OBSERVED | {"line": pl.UInt32()}), _refused(pl.DataFrame(schema=_REFUSED))
    fields = _fields(lines).with_row_index("line")
    parsed = fields.with_columns(
        _time("datetime"),
        _time("pubtime"),
        *(pl.col(name).str.strip_chars().cast(pl.Float64, strict=False) for name in ("lat", "lon", "value", "level")),
        pl.col("code").cast(pl.Float64, strict=False).cast(pl.Int8, strict=False),
        pl.col("code").is_not_null().alias("has_code"),
    )
    finite = [pl.col(name).is_finite().fill_null(False) for name in ("lat", "lon", "value", "level")]
    checks: list[tuple[pl.Expr | pl.Series, str]] = [
        (pl.col("type").is_null(), "is no JSON object with a type"),
        (pl.col("platform").is_null() | (pl.col("platform") == ""), "has no properties.platform"),
        (pl.col("datetime").is_null(), "has no properties.datetime that can be read"),
        (~finite[0] | ~finite[1], "has no geometry.coordinates with lat and lon"),
        (pl.col("encoding").fill_null("utf-8") != "utf-8", "has content in an encoding other than utf-8"),
        (~finite[2], "has no properties.content.value that is a number"),
        (pl.any_horizontal(pl.col("standard_name", "method", "period").is_null()) | ~finite[3],
         "does not tell its parameter (content.standard_name, level, function, period)"),
        (pl.col("has_code") & pl.col("code").is_null(), "has a quality_code that is no small whole number"),
        (~_unit_fits(parsed), "has a unit that its quantity cannot be in"),
    ]  # fmt: skip
    parsed = parsed.with_columns(
        pl.coalesce(*(pl.when(wrong).then(pl.lit(reason)) for wrong, reason in checks)).alias("reason"),
        pl.concat_str("standard_name", pl.col("level").cast(pl.String), "method", "period", separator=":").alias(
            "parameter"
        ),
    )
    good = parsed.filter(pl.col("reason").is_null()).select(*OBSERVED, "line")
    bad = parsed.filter(pl.col("reason").is_not_null()).select("line", "reason")
    bad = bad.filter(pl.Series(lines.gather(bad["line"]).str.strip_chars() != "", dtype=pl.Boolean))
    return good, _refused(bad.with_columns(lines.gather(bad["line"]).alias("text")))


_REFUSED = {"line": pl.UInt32, "text": pl.String, "reason": pl.String}


def _refused(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(*_REFUSED)


def _fields(lines: pl.Series) -> pl.DataFrame:
    """The fields of all lines as texts, null where a line has none. One pass over the JSON, without a thread."""
    table = pa.table({"line": lines.to_arrow(compat_level=pl.CompatLevel.oldest())})
    paths = ", ".join(f"'{path}'" for path in _PATHS.values())
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("lines", table)
        found = connection.sql(
            f"SELECT CASE WHEN json_valid(line) THEN json_extract_string(line, [{paths}]) END AS fields FROM lines"  # noqa: S608 (names of our own)
        )
        fields = pl.DataFrame(pl.from_arrow(found.to_arrow_table()))["fields"]
    return pl.DataFrame([fields.list.get(place, null_on_oob=True).alias(name) for place, name in enumerate(_PATHS)])


def _unit_fits(parsed: pl.DataFrame) -> pl.Series:
    pairs = parsed.select("standard_name", "unit").unique()
    fits = pl.Series("fits", [_convertible(name, unit) for name, unit in pairs.iter_rows()], pl.Boolean)
    known = parsed.select("standard_name", "unit").join(
        pairs.with_columns(fits), on=["standard_name", "unit"], how="left", nulls_equal=True, maintain_order="left"
    )
    return known["fits"]


def _convertible(standard_name: str | None, unit: str | None) -> bool:
    try:
        declared_conversion(standard_name or "", unit)
    except UnitError:
        return False
    return True


def _time(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)


def wide(observed: pl.DataFrame, config: EsohConfig, flagged: bool = True) -> pl.DataFrame:
    """Wide rows, one a platform, time and place, with the columns that the source's metadata declare.

    Of several messages on one value the one with the newest ``pubtime`` counts, and of its quality codes likewise the
    newest that is there. Ordered by station, time and place: the same messages give the same rows, in whatever order
    they came.
    """
    place = ["platform", "datetime", "lat", "lon"]
    newest = (
        observed.filter(pl.col("parameter").is_in(config.parameters))
        .pipe(_in_declared_units, config)
        .sort("pubtime", "value", "code", nulls_last=False)
        .group_by(*place, "parameter")
        .agg(pl.col("value").last(), pl.col("code").drop_nulls().last())
    )
    rows = newest.group_by(place).agg(
        expression
        for parameter in config.parameters
        for expression in (
            pl.col("value").filter(pl.col("parameter") == parameter).first().alias(parameter),
            *(
                [pl.col("code").filter(pl.col("parameter") == parameter).first().alias(flag_column(parameter))]
                if flagged
                else []
            ),
        )
    )
    return described(rows.rename({"platform": "platform_id"})).sort("station_id", "datetime", "lat", "lon")


def described(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with a ``platform_id`` as they leave the source: time and place, values, and what describes the station.

    Netatmo passes on what outdoor modules of fixed stations measure; it does not tell their height.
    """
    values = [name for name in rows.columns if ":" in name]
    return rows.with_columns(
        pl.col("platform_id").alias("station_id"),
        pl.lit("fixed").alias("mobility"),
        pl.lit(None, pl.Float64).alias("station_height"),
        pl.lit("false").alias("indoor"),
    ).select("datetime", "lat", "lon", *values, *DESCRIBED)


def _in_declared_units(observed: pl.DataFrame, config: EsohConfig) -> pl.DataFrame:
    kinds = observed.select("parameter", "unit").unique().sort("parameter", "unit", nulls_last=True)
    factors = [declared_conversion(parameter.split(":")[0], unit) for parameter, unit in kinds.iter_rows()]
    if all(factor == (1.0, 0.0) for factor in factors):
        return observed
    scales = kinds.with_columns(
        pl.Series("scale", [scale for scale, _ in factors]), pl.Series("offset", [offset for _, offset in factors])
    )
    converted = observed.join(scales, on=["parameter", "unit"], how="left", nulls_equal=True)
    return converted.with_columns(value=pl.col("value") * pl.col("scale") + pl.col("offset")).drop("scale", "offset")


def batches_of(rows: pl.DataFrame, at_once: int = 65_536) -> Sequence[pa.RecordBatch]:
    """Rows as Arrow batches of plain types."""
    return [
        batch
        for some in rows.iter_slices(at_once)
        for batch in some.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks().to_batches()
    ]


def in_window(window: Window) -> pl.Expr:
    """Whether a row's ``datetime`` is in `window`."""
    return pl.col("datetime").ge(pl.lit(window.start)) & pl.col("datetime").lt(pl.lit(window.end))
