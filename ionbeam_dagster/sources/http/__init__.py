"""HTTP for all sources that ask a web service: sending, trying again, logging in, caching, saying what failed.

    client.py        the client: requests side by side, streams, downloads
    answers.py       a complete answer, and the error that a request ends with
    credentials.py   what goes into the Authorization header, and how it is renewed
    retries.py       which failures pass, and how long a service asks to be left alone
    wire.py          what stands between the client and the connection: credentials, pace, certificates

    client = HttpClient("https://service.example", credentials=Basic("user", "password"), concurrency=4)
    stations = client.get_json("/stations", {"country": "NO"})
    for station, answer in client.side_by_side(stations, lambda one: client.get(f"/data/{one['id']}", allow=(404,))):
        ...

It is synchronous: a source stays a plain iterator, and what can go on at once does so in threads (`side_by_side`).
Making a client opens nothing. Does not belong here: what a service's answers mean (each source).
"""

from ionbeam_dagster.sources.http.answers import Answer, HttpError
from ionbeam_dagster.sources.http.client import HttpClient
from ionbeam_dagster.sources.http.credentials import Basic, Bearer, Fixed, Token

__all__ = ["Answer", "Basic", "Bearer", "Fixed", "HttpClient", "HttpError", "Token"]
