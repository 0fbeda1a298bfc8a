import io
import zipfile

import pytest
from openai import AsyncOpenAI, NotFoundError

from handlers.simulated_upstream import SimulatedUpstream

pytestmark = pytest.mark.integration

CONTENT = bytes(range(256)) * 40


def zipped(name: str, text: str) -> bytes:
    """A zip archive of one file."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(name, text)
    return sink.getvalue()


async def test_a_container_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A container is found under its id and listed under its name until it is deleted."""
    created = await sdk.containers.create(
        name="lab",
        expires_after={"anchor": "last_active_at", "minutes": 20},
        memory_limit="1g",
        network_policy={"type": "disabled"},
    )
    assert created.name == "lab"
    found = await sdk.containers.retrieve(created.id)
    assert (found.id, found.name) == (created.id, "lab")

    other = await sdk.containers.create(name=f"lab of {created.id}")
    assert [c.id async for c in sdk.containers.list(name=other.name)] == [other.id]
    page = await sdk.containers.list(limit=1, order="desc")
    assert [container.id for container in page.data] == [other.id]
    assert (await page.get_next_page()).data[0].id == created.id

    await sdk.containers.delete(created.id)
    with pytest.raises(NotFoundError):
        await sdk.containers.retrieve(created.id)


async def test_a_container_file_lives_from_upload_to_deletion(sdk: AsyncOpenAI) -> None:
    """A file put into a container is listed in it and downloaded byte for byte, until it is deleted."""
    container = await sdk.containers.create(name="lab")
    files = sdk.containers.files
    sent = await files.create(container.id, file=("data.bin", CONTENT))
    assert (sent.container_id, sent.bytes, sent.path) == (container.id, len(CONTENT), "/mnt/data/data.bin")
    known = await sdk.files.create(file=("known.txt", b"known"), purpose="user_data")
    linked = await files.create(container.id, file_id=known.id)

    assert [file.id async for file in files.list(container.id, limit=1, order="asc")] == [sent.id, linked.id]
    found = await files.retrieve(sent.id, container_id=container.id)
    assert (found.id, found.bytes) == (sent.id, len(CONTENT))
    assert (await files.content.retrieve(sent.id, container_id=container.id)).content == CONTENT

    await files.delete(sent.id, container_id=container.id)
    with pytest.raises(NotFoundError):
        await files.retrieve(sent.id, container_id=container.id)


async def test_a_skill_lives_from_creation_to_deletion(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A folder of files becomes a skill, which is listed and found under its id until it is deleted."""
    created = await sdk.skills.create(
        files=[("notes/SKILL.md", b"# Notes\n"), ("notes/scripts/run.sh", b"#!/bin/sh\n")]
    )
    sent = upstream.recorder.requests[0].body_start
    assert b'filename="notes/scripts/run.sh"' in sent
    assert (await sdk.skills.retrieve(created.id)).id == created.id
    page = await sdk.skills.list(limit=1, order="desc")
    assert [skill.id for skill in page.data] == [created.id]

    deleted = await sdk.skills.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.skills.retrieve(created.id)


async def test_versions_of_a_skill_are_kept_apart(sdk: AsyncOpenAI) -> None:
    """Every version has its own bytes; the default one can be changed; a version can be deleted."""
    first, second = zipped("SKILL.md", "# One"), zipped("SKILL.md", "# Two")
    skill = await sdk.skills.create(files=("skill.zip", first))
    version = await sdk.skills.versions.create(skill.id, files=("skill.zip", second), default=True)
    assert (version.skill_id, version.version) == (skill.id, "2")
    assert (await sdk.skills.retrieve(skill.id)).default_version == "2"

    assert (await sdk.skills.content.retrieve(skill.id)).content == first
    assert (await sdk.skills.versions.content.retrieve("2", skill_id=skill.id)).content == second
    listed = [v.version async for v in sdk.skills.versions.list(skill.id, limit=5, order="asc")]
    assert listed == ["1", "2"]

    changed = await sdk.skills.update(skill.id, default_version="1")
    assert (changed.id, changed.default_version) == (skill.id, "1")
    assert (await sdk.skills.versions.retrieve("2", skill_id=skill.id)).version == "2"
    deleted = await sdk.skills.versions.delete("2", skill_id=skill.id)
    assert deleted.deleted
    assert deleted.version == "2"
    with pytest.raises(NotFoundError):
        await sdk.skills.versions.retrieve("2", skill_id=skill.id)
