"""The payload store in a real object store: what a client puts there, the platform reads and removes."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import pyarrow as pa
from client_samples import SCHEMA, rows

from ionbeam_client.payloads import PayloadStore


def test_payloads_in_a_bucket_are_read_and_removed(s3, monkeypatch):
    section = s3.section()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", section["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", section["secret_key"])
    endpoint = urlencode({"region": "us-east-1", "scheme": "http", "endpoint_override": s3.endpoint.partition("//")[2]})
    store = PayloadStore(f"{s3.bucket('payloads')}/clients?{endpoint}")
    writer, abandoned = store.writer(SCHEMA), store.writer(SCHEMA)
    writer.write(rows(100).to_batches())
    assert store.shared and writer.publish("a/b.parquet") == store.size("a/b.parquet") > 0
    assert pa.Table.from_batches(store.batches("a/b.parquet")).equals(rows(100))
    abandoned.discard()
    assert store.drafts(datetime.now(UTC)) == []
    store.remove("a/b.parquet")
    store.remove("a/b.parquet")
    assert store.size("a/b.parquet") == 0
