import pytest
from openai import AsyncOpenAI, NotFoundError
from openai.types import EvalCreateResponse
from openai.types.graders import StringCheckGraderParam

pytestmark = pytest.mark.integration

MODEL = "gpt-6-luna"
CHECK: StringCheckGraderParam = {
    "type": "string_check",
    "name": "Topic matches",
    "input": "{{sample.output_text}}",
    "reference": "{{item.topic}}",
    "operation": "ilike",
}


async def make_eval(sdk: AsyncOpenAI, name: str) -> EvalCreateResponse:
    """A new eval over items of its own."""
    return await sdk.evals.create(
        name=name,
        data_source_config={
            "type": "custom",
            "item_schema": {"type": "object", "properties": {"ticket": {"type": "string"}}},
            "include_sample_schema": True,
        },
        testing_criteria=[CHECK],
        metadata={"team": "docs"},
    )


async def test_an_eval_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """An eval is found, listed, renamed and deleted under its id."""
    older = await make_eval(sdk, "Older")
    created = await make_eval(sdk, "Topics")
    assert (created.name, created.metadata) == ("Topics", {"team": "docs"})
    found = await sdk.evals.retrieve(created.id)
    assert (found.id, found.name) == (created.id, "Topics")
    page = await sdk.evals.list(limit=1, order="desc", order_by="created_at")
    assert [item.id for item in page.data] == [created.id]
    assert (await page.get_next_page()).data[0].id == older.id

    renamed = await sdk.evals.update(created.id, name="Subjects")
    assert (renamed.id, renamed.name) == (created.id, "Subjects")
    deleted = await sdk.evals.delete(created.id)
    assert (deleted.eval_id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.evals.retrieve(created.id)


async def test_a_run_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A run belongs to its eval, is finished, listed with its results, and deleted under its id."""
    parent = await make_eval(sdk, "Topics")
    runs = sdk.evals.runs
    created = await runs.create(
        parent.id,
        name="First",
        data_source={
            "type": "completions",
            "model": MODEL,
            "input_messages": {
                "type": "template",
                "template": [{"role": "user", "content": "Name the topic: {{item.ticket}}"}],
            },
            "sampling_params": {"temperature": 0},
            "source": {"type": "file_content", "content": [{"item": {"ticket": "Printer is on fire."}}]},
        },
    )
    assert (created.eval_id, created.name, created.status) == (parent.id, "First", "queued")
    found = await runs.retrieve(created.id, eval_id=parent.id)
    assert (found.id, found.status) == (created.id, "completed")
    assert [run.id async for run in runs.list(parent.id, status="completed")] == [created.id]
    assert [run.id async for run in runs.list(parent.id, status="failed")] == []

    results = [item async for item in runs.output_items.list(created.id, eval_id=parent.id, limit=1)]
    assert results
    assert {(item.run_id, item.eval_id) for item in results} == {(created.id, parent.id)}
    result = await runs.output_items.retrieve(results[0].id, eval_id=parent.id, run_id=created.id)
    assert result.id == results[0].id

    deleted = await runs.delete(created.id, eval_id=parent.id)
    assert (deleted.run_id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await runs.retrieve(created.id, eval_id=parent.id)


async def test_a_fine_tuning_job_is_created_followed_and_steered(sdk: AsyncOpenAI) -> None:
    """A job is found under its id with its files, its events and checkpoints are listed, and it obeys."""
    jobs = sdk.fine_tuning.jobs
    source = await sdk.files.create(file=("train.jsonl", b"{}\n"), purpose="fine-tune")
    created = await jobs.create(
        model=MODEL,
        training_file=source.id,
        suffix="tickets",
        seed=9,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}},
        integrations=[{"type": "wandb", "wandb": {"project": "tickets", "tags": ["a", "b"]}}],
        metadata={"team": "docs"},
    )
    assert (created.training_file, created.seed, created.status) == (source.id, 9, "validating_files")
    found = await jobs.retrieve(created.id)
    assert (found.id, found.status) == (created.id, "succeeded")

    assert [event.message async for event in jobs.list_events(created.id, limit=2)]
    checkpoints = [checkpoint async for checkpoint in jobs.checkpoints.list(created.id, limit=2)]
    assert {checkpoint.fine_tuning_job_id for checkpoint in checkpoints} == {created.id}

    assert (await jobs.pause(created.id)).id == created.id
    assert (await jobs.resume(created.id)).status == "running"
    cancelled = await jobs.cancel(created.id)
    assert (cancelled.id, cancelled.status) == (created.id, "cancelled")


async def test_fine_tuning_jobs_are_paged_and_filtered(sdk: AsyncOpenAI) -> None:
    """The newest jobs lead the list; metadata chooses among them."""
    jobs = sdk.fine_tuning.jobs
    ids = [(await jobs.create(model=MODEL, training_file="file-example1")).id for _ in range(2)]
    page = await jobs.list(limit=1)
    assert [job.id for job in page.data] == [ids[1]]
    assert (await page.get_next_page()).data[0].id == ids[0]
    marked = await jobs.create(model=MODEL, training_file="file-example1", metadata={"after": ids[1]})
    assert [job.id async for job in jobs.list(metadata={"after": ids[1]})] == [marked.id]


async def test_graders_are_validated_and_run(sdk: AsyncOpenAI) -> None:
    """A grader comes back as it was sent, and grades a sample."""
    graders = sdk.fine_tuning.alpha.graders
    validated = await graders.validate(grader=CHECK)
    assert validated.grader is not None
    assert validated.grader.type == "string_check"
    graded = await graders.run(grader=CHECK, model_sample="printers", item={"topic": "printers"})
    assert 0 <= graded.reward <= 1
