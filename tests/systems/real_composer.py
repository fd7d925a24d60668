"""bce_bridge.composer beside Composer's own function, in an environment of its own: make test-composer.

Composer pins an older torch, so that make test runs test_composer.py instead, on recorded answers.
"""

import sys
from pathlib import Path

import composer_problems
import pytest

from bce_bridge.composer import binary_cross_entropy_with_logits
from bce_bridge.conformance import implementations
from bce_bridge.conformance.crosscheck import crosscheck

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import record_composer  # noqa: E402


@pytest.fixture(scope="session")
def real():
    return record_composer.real(Path(sys.prefix) / "legacy")


# Catches: what other numbers than the recorded ones would show.
@pytest.mark.parametrize("seed", range(1, 6))
def test_answers_as_composer(real, seed):
    for id, arguments in composer_problems.problems(seed):
        ours = composer_problems.answer(binary_cross_entropy_with_logits, arguments)
        composer_problems.check(id, arguments, ours, composer_problems.answer(real, arguments))


# Catches: recorded answers that are not Composer's.
def test_recorded_answers_are_composers(real):
    import test_composer

    for record in test_composer.RECORDS:
        arguments, recorded = (
            {name: test_composer.decode(value) for name, value in record[kind].items()} for kind in ("arguments", "answer")
        )
        theirs = composer_problems.answer(real, arguments)
        if "error" in recorded:
            assert theirs == recorded
        else:
            composer_problems.check(record["id"], arguments, theirs, recorded)


@pytest.mark.filterwarnings("default")  # what Composer imports warns
def test_crosscheck_beside_composer():
    ours, theirs = crosscheck(implementations=(implementations.ComposerFrontEnd, implementations.Composer))
    assert ours.verdict == "conforms" and not theirs.failures and theirs.cases == ours.cases > 90
