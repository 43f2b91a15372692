"""What happened to rows as they were read, in words."""

from seqssvae.data.corpus import Corpus, CorpusCounts


def describe_counts(corpus: Corpus, max_length: int) -> list[str]:
    """Say how many rows of a corpus were left out or cut, and how many symbols are unknown, in a sentence each.

    Args:
        corpus: The rows as they were encoded.
        max_length: Greatest length of a sequence, in symbols without END.

    Returns:
        The sentences, each of which begins with where the rows are from; none if nothing happened.
    """
    return describe(corpus.counts, corpus.origin, max_length)


def describe(counts: CorpusCounts, origin: str, max_length: int) -> list[str]:
    """Say the same of counts alone.

    Args:
        counts: What happened to the rows.
        origin: Where they are from.
        max_length: Greatest length of a sequence, in symbols without END.
    """
    sentences = []
    if counts.skipped:
        sentences.append(f"{counts.skipped} of {counts.rows} rows left out: longer than {max_length} symbols.")
    if counts.truncated:
        sentences.append(f"{counts.truncated} of {counts.rows} sequences cut to {max_length} symbols.")
    if counts.unknown_symbols:
        sentences.append(f"{counts.unknown_symbols} symbols are not in the vocabulary and were read as UNK.")
    return [f"{origin}: {sentence}" for sentence in sentences]
