"""What a fitted estimator writes: new sequences of a label, and sequences made of others."""

from collections.abc import Iterable, Sequence
from typing import Any

from seqssvae.backend import NO_LABEL
from seqssvae.config import DecodingMethod, DecodingOptions
from seqssvae.estimator.fitted import FittedMixin, FittedModel, Sequences
from seqssvae.inference.generate import check_generator, draw_labels, generate
from seqssvae.inference.transduce import transduce
from seqssvae.inference.transfer import interpolate, relabel


class GenerationMixin(FittedMixin):
    """Mixin of an estimator that has a generator."""

    def _get_generator(self) -> FittedModel:
        """What training left; ConfigurationError where that is a classifier alone."""
        fitted = self._get_fitted()
        check_generator(fitted.config.objective)
        return fitted

    def transduce(
        self,
        source: Sequences,
        y: Iterable[Any] | None = None,
        method: DecodingMethod = "greedy",
        beam_width: int = 5,
        max_length: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        allow_unknown: bool = False,
    ) -> list[Any]:
        """Return the sequence that is made of each source, in the form in which X was given to `fit`.

        Args:
            source: Sources: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one, for which the most probable label is taken.
            method: Take the most probable symbol at each step (`greedy`), search for the most probable sequence
                (`beam`), or draw each symbol (`sample`).
            beam_width: Number of candidates kept by `beam`.
            max_length: Greatest number of symbols; None for the greatest length of training.
            seed: Seed of what `sample` draws.
            temperature: Of `sample`: divides the logits of each symbol.
            top_p: Of `sample`: the most probable symbols that have this probability together are drawn from.
            allow_unknown: Whether `<UNK>`, which stands for every symbol that is not known, may be chosen.

        Raises:
            ConfigurationError: If a number of the search is wrong.
            DataError: If a label is unknown, or the estimator was fitted without sources.
        """
        fitted = self._get_generator()
        sources = fitted.encode_sources(source)
        indices = self._label_indices(y, len(sources))
        options = DecodingOptions(max_length, method, beam_width, temperature, top_p, allow_unknown)
        sequences = transduce(fitted.backend, fitted.schema.vocabulary, sources, indices, fitted.config, options, seed)
        return [fitted.decode(sequence.symbols) for sequence in sequences]

    def sample(
        self,
        label: Any = None,
        n: int = 1,
        seed: int = 0,
        method: DecodingMethod = "sample",
        beam_width: int = 5,
        max_length: int | None = None,
        source: str | Sequence[str] | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        allow_unknown: bool = False,
    ) -> list[Any]:
        """Generate new sequences of a label, in the form (texts, or lists of symbols) in which X was given to `fit`.

        Args:
            label: One of `classes_`, or the marker of a missing one: then the label of each is drawn from p(y), or from
                p(y|source).
            n: Number of sequences.
            seed: Seed of z and of the symbols.
            method: Draw each symbol (`sample`), take the most probable one (`greedy`), or search for the most probable
                sequence (`beam`).
            beam_width: Number of candidates kept by `beam`.
            max_length: Greatest number of symbols; None for the greatest length of training.
            source: The source that they are made from, if the estimator was fitted with sources.
            temperature: Of `sample`: divides the logits of each symbol; below 1 symbols are surer, above 1 wilder.
            top_p: Of `sample`: the most probable symbols that have this probability together are drawn from (Holtzman
                et al. 2020, https://arxiv.org/abs/1904.09751).
            allow_unknown: Whether `<UNK>`, which stands for every symbol that is not known, may be chosen.

        Raises:
            ConfigurationError: If a number of the search is wrong.
            DataError: If there is no such label.
        """
        fitted = self._get_generator()
        fitted.check_source(source)
        source_ids = None if source is None else fitted.encode_sources([source])[0]
        (index,) = self._label_indices([label], 1)
        if index == NO_LABEL:
            index = draw_labels(fitted.backend, fitted.schema.label_prior, n, seed, source_ids)
        options = DecodingOptions(max_length, method, beam_width, temperature, top_p, allow_unknown)
        sequences = generate(fitted.backend, fitted.schema.vocabulary, index, n, options, seed, source_ids)
        return [fitted.decode(sequence.symbols) for sequence in sequences]

    def relabel(
        self,
        X: Sequences,
        label: Any,
        y: Iterable[Any] | None = None,
        method: DecodingMethod = "greedy",
        beam_width: int = 5,
        max_length: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        allow_unknown: bool = False,
        source: Sequences | None = None,
    ) -> list[Any]:
        """Return what each sequence would be, were it of another label: z is held, the label is changed.

        Args:
            X: Sequences: texts, or lists of symbols.
            label: The other label, one of `classes_`.
            y: The own label of each, or the marker of a missing one, for which the most probable label is taken; z is
                the mean of q(z|x,y) at that label.
            method: As of `transduce`.
            beam_width: As of `transduce`.
            max_length: As of `transduce`.
            seed: As of `transduce`.
            temperature: As of `transduce`.
            top_p: As of `transduce`.
            allow_unknown: As of `transduce`.
            source: The source of each, if the estimator was fitted with sources.

        Returns:
            A sequence for each, in the form in which X was given to `fit`.

        Raises:
            ConfigurationError: If a number of the search is wrong.
            DataError: If a label is unknown, or a sequence is wrong.
        """
        fitted = self._get_generator()
        index = self._label_index(label)
        rows = fitted.encode(X, source)
        rows = rows.with_labels(self._label_indices(y, len(rows)))
        given = fitted.backend, fitted.schema.vocabulary, rows, index, fitted.config
        options = DecodingOptions(max_length, method, beam_width, temperature, top_p, allow_unknown)
        sequences = relabel(*given, options, seed)
        return [fitted.decode(sequence.symbols) for sequence in sequences]

    def interpolate(
        self,
        a: str | Sequence[str],
        b: str | Sequence[str],
        label: Any,
        n: int = 7,
        method: DecodingMethod = "greedy",
        beam_width: int = 5,
        max_length: int | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        allow_unknown: bool = False,
        source: str | Sequence[str] | None = None,
    ) -> list[Any]:
        """Return what is decoded, at one label, on the straight line from one sequence's z to another's.

        Args:
            a: The sequence whose z comes first, the mean of q(z|a,label).
            b: The sequence whose z comes last.
            label: One of `classes_`.
            n: Number of sequences, at equal distances, those of both ends included.
            method: As of `transduce`.
            beam_width: As of `transduce`.
            max_length: As of `transduce`.
            seed: As of `transduce`.
            temperature: As of `transduce`.
            top_p: As of `transduce`.
            allow_unknown: As of `transduce`.
            source: The source of all of them, if the estimator was fitted with sources.

        Returns:
            The sequences, in the form in which X was given to `fit`.

        Raises:
            ConfigurationError: If `n` is below 2, or a number of the search is wrong.
            DataError: If there is no such label, or a sequence is wrong.
        """
        fitted = self._get_generator()
        index = self._label_index(label)
        ends = fitted.encode([a, b], None if source is None else [source, source])
        given = fitted.backend, fitted.schema.vocabulary, ends, index, n, fitted.config
        options = DecodingOptions(max_length, method, beam_width, temperature, top_p, allow_unknown)
        sequences = interpolate(*given, options, seed)
        return [fitted.decode(sequence.symbols) for sequence in sequences]
