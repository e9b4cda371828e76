"""Sends a few runs with the public OpenLineage client: four that complete, one that fails, one that is aborted.

The client is configured by OPENLINEAGE_CONFIG. Times are a minute apart and end now, so that every run falls into the
last hour.
"""

from datetime import datetime, timedelta, timezone

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import error_message_run, input_statistics_input_dataset, output_statistics_output_dataset
from openlineage.client.uuid import generate_new_uuid

PRODUCER = "https://example.com/karat/dev/live"
NAMESPACE = "live-client"
OUTCOMES = [RunState.COMPLETE, RunState.COMPLETE, RunState.FAIL, RunState.COMPLETE, RunState.ABORT, RunState.COMPLETE]


def read(rows: int) -> InputDataset:
    facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=rows)
    return InputDataset("live://source", "orders", inputFacets={"inputStatistics": facet})


def written(rows: int) -> OutputDataset:
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=rows * 64)
    return OutputDataset("live://warehouse", "orders", outputFacets={"outputStatistics": facet})


def main() -> None:
    client = OpenLineageClient()
    now = datetime.now(timezone.utc)
    for number, outcome in enumerate(OUTCOMES):
        start = now - timedelta(minutes=len(OUTCOMES) - number)
        run, job = Run(str(generate_new_uuid())), Job(NAMESPACE, f"load_orders_{number % 2}")
        client.emit(RunEvent(eventTime=start.isoformat(), producer=PRODUCER, run=run, job=job, eventType=RunState.START))
        inputs, outputs = [], []
        if outcome == RunState.COMPLETE:
            inputs, outputs = [read(1_000 + number)], [written(900 + number)]
        elif outcome == RunState.FAIL:
            facet = error_message_run.ErrorMessageRunFacet(message="column not found", programmingLanguage="PYTHON")
            run = Run(run.runId, facets={"errorMessage": facet})
        end = start + timedelta(seconds=10 + number)
        client.emit(
            RunEvent(eventTime=end.isoformat(), producer=PRODUCER, run=run, job=job, eventType=outcome,
                     inputs=inputs, outputs=outputs)
        )
    client.close()


if __name__ == "__main__":
    main()
