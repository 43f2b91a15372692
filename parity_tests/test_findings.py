"""What the proof makes of a difference: whether it holds, and what only one side has."""

import numpy as np

from parity_tests.findings import Finding, compare, failures


def test_nan_never_holds() -> None:
    (finding,) = compare("rung", "where", {"a": np.ones(1)}, {"a": np.full(1, np.nan)}, np.inf)
    assert np.isnan(finding.difference)
    assert not finding.holds
    assert Finding("rung", "what", 1.0, 1.0).holds


def test_a_name_on_one_side_only_is_a_failure() -> None:
    findings = compare("rung", "where", {"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1), "c": np.ones(1)}, 0.0)
    assert [one.what for one in failures(findings)] == ["where: b on one side only", "where: c on one side only"]
