"""A double of the OpenAI API, computed from the contract's examples, with a recorder and fault injection."""

from handlers.simulated_upstream.app import SimulatedUpstream
from handlers.simulated_upstream.connection import ConnectionCut
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest, Recorder

__all__ = ["ConnectionCut", "Fault", "RecordedRequest", "Recorder", "SimulatedUpstream"]
