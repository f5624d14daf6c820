"""How teachers disagree: with a consensus, with each other step by step, over time, and with the report."""

from cxr_max.drift.conflict import Conflict, Relation, conflict
from cxr_max.drift.multistream import StepTest, disagreement, divergence, jensen_shannon, multistream_test
from cxr_max.drift.profile import Profile, profile
from cxr_max.drift.states import align, commit_states, streams
from cxr_max.drift.steps import steps
from cxr_max.drift.temporal import Change, ModelChange, Observation, TemporalDrift, temporal_drift

__all__ = [
    "Change",
    "Conflict",
    "ModelChange",
    "Observation",
    "Profile",
    "Relation",
    "StepTest",
    "TemporalDrift",
    "align",
    "commit_states",
    "conflict",
    "disagreement",
    "divergence",
    "jensen_shannon",
    "multistream_test",
    "profile",
    "steps",
    "streams",
    "temporal_drift",
]
