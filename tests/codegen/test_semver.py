import pytest

from codegen.exceptions import InvalidContract
from codegen.semver import Level, Version, read_version


@pytest.mark.parametrize(
    "level, version",
    [(Level.NONE, "1.2.3"), (Level.PATCH, "1.2.4"), (Level.MINOR, "1.3.0"), (Level.MAJOR, "2.0.0")],
)
def test_each_level_raises_its_number_and_resets_the_lower_ones(level: Level, version: str) -> None:
    """The lowest version that says enough."""
    assert str(Version(1, 2, 3).raised(level)) == version


def test_versions_compare_by_their_numbers_not_as_text() -> None:
    """1.10.0 is higher than 1.9.0."""
    assert read_version("1.10.0", "a.yaml") > read_version("1.9.0", "a.yaml")


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3-rc.1", "01.2.3", "v1.2.3", "1.2.3\n", "one"])
def test_anything_but_three_numbers_is_refused_with_the_file(text: str) -> None:
    """A version that cannot be compared is no version; the message says where it stands."""
    with pytest.raises(InvalidContract, match=r"a\.yaml: `info\.version` must be three numbers"):
        read_version(text, "a.yaml")
