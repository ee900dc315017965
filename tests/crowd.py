"""The block of a source whose files have a crowd's stations, for tests of what others are shown of these."""

_BLOCK = """
  scheduler: {{windows: [{{source_name: crowd, window_size: PT1H}}]}}
  crowd:
    type: files
    path: in
    settle: PT0S
    start: {start}
    aggregation_span: PT1H
    exports: {exports}
    time: t
    latitude: lat
    longitude: lon
    variables: [{{column: warm, standard_name: air_temperature, cf_unit: degC, level: 2.0}}]
    metadata: {metadata}
"""


def crowd(exports: str, metadata: str, start: str = "2026-06-21", **more: str) -> str:
    """With `more` keys of the source; all as YAML."""
    return _BLOCK.format(exports=exports, metadata=metadata, start=start) + "".join(
        f"    {key}: {value}\n" for key, value in more.items()
    )
