"""The broker of the client's tests."""

from servers import rabbitmq  # noqa: F401
