"""The run report: what a run did, as JSON and as one page of HTML."""
