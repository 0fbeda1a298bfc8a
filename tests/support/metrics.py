"""Reads what `/metrics` answers, as a scraper does."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import RelayProcess


@dataclass(frozen=True)
class Scrape:
    """
    One answer of `/metrics`.

    Args:
        text: As it came.
    """

    text: str

    def names(self) -> set[str]:
        """Names of all samples and of the families without any."""
        families = list(text_string_to_metric_families(self.text))
        samples = {sample.name for family in families for sample in family.samples}
        empty = {f"{f.name}_total" if f.type == "counter" else f.name for f in families if not f.samples}
        return samples | empty

    def sum(self, name: str, **labels: str) -> float:
        """All samples of a name with these labels, added up."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values_of(self, label: str) -> set[str]:
        """Everything that stands in a label."""
        return {
            sample.labels[label]
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if label in sample.labels
        }


def scraper(relay: RelayProcess, headers: dict[str, str]) -> Callable[[], Scrape]:
    """
    Scrape a relay.

    Args:
        headers: With a key of the scope `operator`.
    """

    def scrape() -> Scrape:
        return Scrape(httpx.get(f"{relay.url}/metrics", headers=headers, timeout=10).raise_for_status().text)

    return scrape
