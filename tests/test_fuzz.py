"""Files that were changed at random are read, or refused with a sentence."""

from collections import Counter

import fuzz
import pytest

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.thorough)])
@pytest.mark.filterwarnings("ignore")
def test_changed_files_are_read_or_refused(tmp_path, fake_twins, count):
    readers = fuzz.all_readers(tmp_path)
    tally = Counter(fuzz.trial(number, readers) for number in range(count))
    assert {ending.partition(": ")[2] for ending in tally} == {"one sentence", "read"}
    assert {ending.partition(":")[0] for ending in tally} == set(fuzz.MAKERS)
