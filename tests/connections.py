"""What a database URL says, in the shape of a connection's secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit


def facts_of(dsn: str) -> Mapping[str, Any]:
    """A connection's facts, in the shape of a secret, from a URL."""
    url = urlsplit(dsn)
    return {
        "host": url.hostname,
        "port": url.port,
        "username": url.username,
        "password": unquote(url.password or ""),
        "dbname": url.path.lstrip("/"),
        "sslmode": "disable",
    }
