from pathlib import Path

import pytest

from handlers.runtime.artifact_objects import ArtifactObjects


@pytest.fixture(params=["memory", "folder"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactObjects:
    """Objects in memory or in a folder."""
    return ArtifactObjects("memory:///" if request.param == "memory" else tmp_path.as_uri())


async def test_an_object_comes_back_in_parts(objects: ArtifactObjects) -> None:
    """A part ends where the object does, however far it was asked for."""
    await objects.put("a", b"0123456789")
    assert await objects.read("a", 0, 10) == b"0123456789"
    assert await objects.read("a", 3, 5) == b"34"
    assert await objects.read("a", 8, 8000) == b"89"
    assert await objects.sizes() == {"a": 10}


async def test_an_object_that_is_not_there_is_not_found(objects: ArtifactObjects) -> None:
    """Reading says so; deleting finds nothing to do."""
    with pytest.raises(FileNotFoundError):
        await objects.read("a", 0, 1)
    await objects.delete(["a"])
    await objects.delete([])


async def test_what_is_gone_does_not_keep_the_rest_from_being_deleted(objects: ArtifactObjects) -> None:
    """One replica may have deleted a part of what another is about to delete."""
    names = [f"{number:03}" for number in range(100)]
    for name in names[50:]:
        await objects.put(name, b"x")
    await objects.delete(names)
    assert await objects.sizes() == {}
