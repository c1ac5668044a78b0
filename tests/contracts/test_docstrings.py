"""The examples in the contracts' docstrings run."""

import doctest
from importlib import import_module

import pytest

pytestmark = pytest.mark.x64
CONTRACTS = [
    "elicitation.designs.base",
    "elicitation.respondents.base",
    "elicitation.respondents.wrong",
    "mechanisms.base",
    "mechanisms.invertible",
]


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_example_of_a_contract_runs(name):
    outcome = doctest.testmod(import_module(f"pcr_jax.{name}"))
    assert outcome.attempted > 3
    assert not outcome.failed
