"""`sluice …`: the operator's tool, on the same verbs as the Lambda handlers. No Lambda loads it."""

from __future__ import annotations

from sluice.cli.app import main

__all__ = ["main"]
