"""What every respondent does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr

M1 = pcr.library.m1
RESPONDENTS = {
    "simulated": lambda: pcr.SimulatedUser(M1()),
    "simulated, one number": lambda: pcr.SimulatedUser(M1(), 0.3, noise=0.1, report="one"),
    "simulated, each their own": lambda: pcr.SimulatedUser(
        jax.vmap(pcr.linear_surrogate(M1().graph).scm)(jnp.ones((4, 3)) * 0.5)
    ),
    "anchored": lambda: pcr.SimulatedUser(M1(), 0.5, pcr.Anchored(), noise=0.1),
    "too weak, each at a rate": lambda: pcr.SimulatedUser(M1(), RATES, pcr.TooWeak(RATES)),
    "guessing, noise by node": lambda: pcr.SimulatedUser(
        M1(), 0.5, pcr.Broad(jnp.ones(3)), noise=RATES[:3]
    ),
    "coherently wrong": lambda: pcr.SimulatedUser(
        M1(), RATES.round(), pcr.population_of_scms(KEY, M1(), 4, 0.3)
    ),
    "rounding": lambda: pcr.SimulatedUser(M1(), noise=0.1, relative_noise=0.1, rounding=1.0),
    "not knowing": lambda: pcr.SimulatedUser(M1(), noise=0.1, dont_know=[0.1, 0.2, 0.3]),
}
KEY = jax.random.key(0)
RATES = jnp.array([0.1, 0.9, 0.4, 0.6])
X = jnp.ones((4, 3))
NODE, SHIFT = jnp.array([0, 1, 0, 1]), jnp.full(4, 0.5)


@pytest.fixture(params=list(RESPONDENTS))
def respondent(request):
    return RESPONDENTS[request.param]()


@pytest.mark.parametrize("individual", [False, True])
def test_answers_are_about_descendants_and_never_about_others(respondent, individual):
    questions = pcr.Questions(NODE, SHIFT, jnp.full(4, individual))
    answer = np.asarray(respondent.answer(KEY, questions, X))
    assert answer.shape == (4, 3)
    reported = ~np.isnan(answer)
    assert reported.any()
    assert not (reported & ~respondent.graph.descendants[np.asarray(NODE)]).any()


def test_who_is_asked_for_one_outcome_reports_nothing_else(respondent):
    outcome = jnp.array([2, 2, -1, -1])
    questions = pcr.Questions(NODE, SHIFT, jnp.ones(4, bool), outcome)
    answer = np.asarray(respondent.answer(KEY, questions, X))
    assert np.isnan(answer[:2, :2]).all()
    every = np.asarray(respondent.answer(KEY, pcr.Questions(NODE, SHIFT, jnp.ones(4, bool)), X))
    told = ~np.isnan(answer)
    if respondent.report == "all":
        np.testing.assert_array_equal(answer[told], every[told])
        np.testing.assert_array_equal(answer[2:], every[2:])


def test_an_individual_answer_is_ones_own_counterfactual():
    user = pcr.SimulatedUser(M1(), error_rate=0.0)
    answer = user.answer(KEY, pcr.Questions(NODE, SHIFT, jnp.ones(4, bool)), X)
    shift = SHIFT[:, None] * (NODE[:, None] == jnp.arange(3))
    own = M1().counterfactual(X, pcr.Action.soft(shift))
    np.testing.assert_allclose(answer, jnp.where(jnp.isnan(answer), jnp.nan, own), rtol=1e-6)


def test_the_same_key_gives_the_same_answers(respondent):
    questions = pcr.Questions(NODE, SHIFT)
    once, again = (respondent.answer(KEY, questions, X) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_an_answer_depends_on_nobody_elses_question_and_features(respondent):
    answer = respondent.answer(KEY, pcr.Questions(NODE, SHIFT), X)
    others = pcr.Questions(NODE.at[1:].set(0), SHIFT.at[1:].set(9.0), jnp.arange(4) > 0)
    np.testing.assert_array_equal(respondent.answer(KEY, others, X.at[1:].set(7.0))[0], answer[0])
