"""Defects of what rows without a label teach q(y|x), to plant into one twin (see `defects`)."""

from typing import Any

import pytest


def consistent_with_what_moves(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The gradient also passes through what q(y|x) is to be like."""

    def inconsistency(ssvae: Any, rows: Any, noisy: Any, term: Any) -> Any:
        certain = term.shifted(ssvae.classifier(ssvae.encode(rows.x, rows.source)).logits)
        wanted = twin.objectives._target(certain, term.shifted(ssvae.label_prior().logits), rows.row_mask, term)
        cross_entropy = -(wanted * term.shifted(ssvae.classifier(noisy.x).logits)).sum(-1)
        return f.where(rows.row_mask, cross_entropy, 0.0)

    patch.setattr(twin.objectives, "inconsistency", inconsistency)


def blunted(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The temperature makes less certain what it is to make more certain."""
    original = twin.objectives.inconsistency

    def inconsistency(ssvae: Any, rows: Any, noisy: Any, term: Any) -> Any:
        return original(ssvae, rows, noisy, term._replace(temperature=1.0 / term.temperature))

    patch.setattr(twin.objectives, "inconsistency", inconsistency)


def shifted_the_other_way(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """A label said to be more frequent is taken to be less so."""
    original = twin.objectives.Consistency.shifted

    def shifted(self: Any, logits: Any) -> Any:
        return original(self._replace(label_shift=[-number for number in self.label_shift]), logits)

    patch.setattr(twin.objectives.Consistency, "shifted", shifted)


def aligned_once(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """What is asked for twice is done once."""
    original = twin.objectives._target
    patch.setattr(twin.objectives, "_target", lambda *given: original(*given[:3], given[3]._replace(realigned=False)))


def aligned_with_filler_rows(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """What q(y|x) says of rows that are none counts among the shares of labels."""
    original = twin.objectives._alignment
    patch.setattr(twin.objectives, "_alignment", lambda *given: original(*given[:2], given[2] | True))


def aligned_the_other_way(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """A label that q(y|x) gives too often is asked for more often still."""
    original = twin.objectives._alignment
    patch.setattr(twin.objectives, "_alignment", lambda *given: -original(*given))


def posterior_of_another_temperature(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """Rows are all as sure as one of four symbols."""
    patch.setattr(twin.objectives, "_temperature", lambda *given: 2.0)


def distilled_from_itself(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """q(y|x) learns to be like q(y|x)."""
    original = twin.objectives._distillation

    def distillation(ssvae: Any, rows: Any, r: Any) -> Any:
        return original(ssvae, rows, f.exp(ssvae.classifier(rows.x).logits))

    patch.setattr(twin.objectives, "_distillation", distillation)


def posterior_of_other_rows(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The posteriors that came with the rows are those of the rows before."""
    original = twin.objectives.given_posterior

    def given_posterior(ssvae: Any, rows: Any) -> Any:
        posterior = original(ssvae, rows)
        return f.concatenate([posterior[-1:], posterior[:-1]])

    patch.setattr(twin.objectives, "given_posterior", given_posterior)
