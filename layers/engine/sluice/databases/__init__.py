"""One module a database: connecting, transactions, error classes."""

from __future__ import annotations
