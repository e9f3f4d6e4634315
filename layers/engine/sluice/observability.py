"""The logger and the metrics of this process."""

from __future__ import annotations

import re

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from aws_lambda_powertools.logging.types import LogRecord

SOCIAL_SECURITY_NUMBER = re.compile(r"\b\d{3}-\d{2}-\d{4}\b")


class RedactingFormatter(LambdaPowertoolsFormatter):
    """JSON lines in which what looks like an SSN is masked.

    The engine never logs a row's value; this is the second fence, for text that comes from elsewhere.
    """

    def serialize(self, log: LogRecord) -> str:
        return SOCIAL_SECURITY_NUMBER.sub("***-**-****", super().serialize(log))


logger = Logger(service="sluice", logger_formatter=RedactingFormatter())
# One dimension, the job: a dimension more is a bill more.
metrics = Metrics(namespace="Sluice", service="")
