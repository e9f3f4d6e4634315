"""Chunked, resumable, exactly-once work on tables, for AWS Lambda and Step Functions."""
