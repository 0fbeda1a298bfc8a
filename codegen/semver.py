"""
Levels of change and the arithmetic of versions, as section 9 of GOVERNANCE.md uses them.

Not for: deciding which level a change has. Reads and writes nothing.
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from codegen.exceptions import InvalidContract

# The numbers of semver.org 2.0.0, section 2; the contract has no pre-releases.
_NUMBERS = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


class Level(IntEnum):
    """How much a change asks of callers; the highest of a release decides its version."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name.lower() if self else "no change"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version without suffix; versions compare by their numbers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def raised(self, level: Level) -> "Version":
        """The lowest version that says that something of this level has changed."""
        if level is Level.MAJOR:
            return Version(self.major + 1, 0, 0)
        if level is Level.MINOR:
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + (level is Level.PATCH))


def read_version(text: str, where: str) -> Version:
    """
    Read a version.

    Args:
        where: The file that it stands in, for the message.

    Raises:
        InvalidContract: It is not three numbers.
    """
    match = _NUMBERS.fullmatch(text)
    if not match:
        raise InvalidContract([f"{where}: `info.version` must be three numbers such as 1.2.0."])
    return Version(*(int(number) for number in match.groups()))
