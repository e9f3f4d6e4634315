"""A local Step Functions service: one process, no AWS, the production state machine unmodified.

    service = StateMachineService(
        invoke_lambda=pool.invoke,  # (function_arn: str, payload: bytes, timeout: float) -> LambdaResult
        s3=boto3.client("s3", endpoint_url=…),
        publish=boto3.client("sns", endpoint_url=…).publish,
        clock=Clock(speed=1.0),
        region="us-east-1",
        account="123456789012",
    )
    status, answer = service.handle("AWSStepFunctions.StartExecution", {"stateMachineArn": …, "input": "{}"})
    service.close()

`handle(target: str, body: dict) -> tuple[int, dict]` answers one request of the AWS JSON 1.0 protocol: `target` is
the X-Amz-Target header (with or without its prefix), `body` the parsed JSON body; the result is the HTTP status
and the JSON body (errors carry `__type` and `message`). It never raises for a bad request and may be called from
any number of threads. `close()` aborts what runs and refuses further calls; it does not wait for Lambda
functions.

`invoke_lambda` blocks for at most `timeout` seconds and raises TimeoutError when the function has not answered by
then. It reports failures in the LambdaResult (see ports.LambdaResult); an exception other than TimeoutError
becomes Lambda.SdkClientException. The s3 client and `publish` are used from many threads at once, which boto3
clients allow.
"""

from __future__ import annotations

from .clock import Clock
from .ports import S3, InvokeLambda, LambdaResult, Publish
from .service import StateMachineService

__all__ = ["S3", "Clock", "InvokeLambda", "LambdaResult", "Publish", "StateMachineService"]
