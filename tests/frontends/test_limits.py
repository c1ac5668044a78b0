"""A person's own limits, as a conversation takes them."""

import jax

import pcr_jax as pcr
from pcr_jax.frontends.conversation import Conversation
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.terms import Terms
from tests.frontends.small_task import small


def test_limits_of_levels_are_numbers_like_others():
    row = {"job": "none", "income": 1500.0, "savings": 500.0}
    surrogate = pcr.linear_surrogate(small().graph)
    talk = Conversation(small(), surrogate, row, Terms(), jax.random.key(0))
    said = talk.profiled(limits={"job": [0.0, 1.0], "income": [1500.0, 2000.0]})
    assert said["limits"] == {"job": [0.0, 1.0], "income": [1500.0, 2000.0]}
    talk.take(Event(0, 0.0, "consented", {}))
    talk.take(Event(1, 0.0, "profile", said))
    assert talk.personal.limits["job"] == (0.0, 1.0)
    assert [control.limits for control in talk.controls()][:2] == list(said["limits"].values())
