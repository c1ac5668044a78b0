import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from pcr_jax import library
from pcr_jax.elicitation import Belief, RandomDesign, SimulatedUser, elicit
from pcr_jax.history import History, Questions, tell
from pcr_jax.scm import Graph, inverted, linear_scm
from pcr_jax.surrogates import linear_surrogate

GRAPH = Graph.fully_connected(3)
# a -> b -> d, a -> d; c -> d; e alone. Only a, b and c have descendants.
SPARSE = Graph.from_edges("abcde", ["ab", "bd", "ad", "cd"])
NUM_USERS, T = 500, 4  # everywhere: another shape is another compilation
X = jnp.zeros((NUM_USERS, 3))
KEY = jax.random.key(0)
M1_USER = SimulatedUser(library.m1(), error_rate=0.3, wrong=library.theta_star())


@pytest.fixture(scope="module")
def history():
    return elicit(KEY, M1_USER, X, num_queries=T)


def repeated(node, shift, num_users=NUM_USERS):
    """The same question to everyone."""
    return Questions(jnp.full(num_users, node), jnp.full(num_users, shift))


def linear_moments(coefficients, mean, variance, node, shift):
    """Mean and variance of X under the shift: (I - B)^-1 (shift + U)."""
    direct = np.zeros((3, 3))
    direct[1, 0], direct[2, 0], direct[2, 1] = coefficients
    total = np.linalg.inv(np.eye(3) - direct)
    return total @ (mean + shift * (np.arange(3) == node)), total**2 @ variance


M1 = (-0.99, 0.99, 0.99), np.zeros(3), np.ones(3)
M2 = (-0.99, 0.05, 0.25), np.array([-0.5, 0, 0]), np.array([3.875, 1, 1])
THETA_STAR = (0.5, -0.5, -0.5), np.zeros(3), np.ones(3)
INVERTED_M2 = (0.99, -0.05, -0.25), *M2[1:]


@pytest.mark.parametrize(
    ("respondent", "source"),
    [
        (SimulatedUser(library.m1(), error_rate=0.0, wrong=library.theta_star()), M1),
        (SimulatedUser(library.m1(), error_rate=1.0, wrong=library.theta_star()), THETA_STAR),
        (SimulatedUser(library.m2(), error_rate=0.0), M2),
        (SimulatedUser(library.m2(), error_rate=1.0), INVERTED_M2),
    ],
)
@pytest.mark.parametrize("node", [0, 1])
def test_answers_average_to_the_expectation_under_the_shift(respondent, source, node):
    # 12 means and as many spreads at 5 standard errors: one false alarm in 50,000 seeds. The
    # kurtosis of a mean of 100 draws is nearly 3.
    answer = np.asarray(respondent.answer(KEY, repeated(node, 0.7), X), float)[:, node + 1 :]
    mean, variance = (m[node + 1 :] for m in linear_moments(*source, node, 0.7))
    variance = variance / 100  # an answer is the mean of 100 draws
    assert (np.abs(answer.mean(0) - mean) < 5 * np.sqrt(variance / NUM_USERS)).all()
    np.testing.assert_allclose(answer.var(0), variance, rtol=5 * np.sqrt(2 / NUM_USERS))


def test_answer_noise_has_the_stated_standard_deviation():
    scm = linear_scm(GRAPH, jnp.ones(3), [dist.Normal(0.0, 1e-6)] * 3)
    respondent = SimulatedUser(scm, error_rate=0.0, wrong=library.theta_star(), noise=0.3)
    answer = np.asarray(respondent.answer(KEY, repeated(0, 1.0), X))[:, 1:]
    # 5 comparisons at 5 standard errors: one false alarm in 300,000 seeds
    np.testing.assert_allclose(answer.mean(0), [1, 2], atol=5 * 0.3 / np.sqrt(NUM_USERS))
    np.testing.assert_allclose(answer.std(0), 0.3, rtol=5 / np.sqrt(2 * NUM_USERS))
    assert abs(np.corrcoef(answer.T)[0, 1]) < 5 / np.sqrt(NUM_USERS)


@pytest.mark.parametrize("error_rate", [0.1, 0.5])
def test_the_error_rate_is_the_share_of_queries_answered_from_the_wrong_scm(error_rate):
    tiny = [dist.Normal(0.0, 1e-3)] * 3
    right, wrong = (linear_scm(GRAPH, jnp.array(c), tiny) for c in ([1.0, 1, 1], [-1.0, -2, 1]))
    respondent = SimulatedUser(right, error_rate, wrong)
    answers = [respondent.answer(jax.random.key(k), repeated(0, 1.0), X)[:, 1:] for k in range(4)]
    is_right, is_wrong = (
        np.all(np.abs(np.concatenate(answers) - np.array(effect)) < 0.01, -1)
        for effect in ([1, 2], [-1, -3])
    )
    assert (is_right ^ is_wrong).all()  # one source per answer, not per number
    # 5 standard errors: 6 false alarms in 10 million seeds
    tolerance = 5 * np.sqrt(error_rate * (1 - error_rate) / is_wrong.size)
    assert abs(is_wrong.mean() - error_rate) < tolerance


def test_all_descendants_are_reported_and_nothing_else():
    x = jnp.zeros((NUM_USERS, 5))
    query = RandomDesign().ask(KEY, Belief(linear_surrogate(SPARSE), History.empty(x, 1)))
    answer = SimulatedUser(linear_scm(SPARSE, jnp.ones(4))).answer(KEY, query, x)
    nodes = np.array(SPARSE.nodes)
    for name, reported in zip(nodes[query.node], ~np.isnan(answer), strict=True):
        assert "".join(nodes[reported]) == {"a": "bd", "b": "d", "c": "d"}[name]


def test_report_one_reports_exactly_one_descendant_each_equally_often():
    one = SimulatedUser(library.m1(), report="one")
    for node, share in [(0, [0, 0.5, 0.5]), (1, [0, 0, 1])]:
        reported = ~np.isnan(one.answer(KEY, repeated(node, 0.5), X))
        assert (reported.sum(1) == 1).all()
        # 5 standard errors: 6 false alarms in 10 million seeds
        np.testing.assert_allclose(reported.mean(0), share, atol=5 * 0.5 / np.sqrt(NUM_USERS))


def test_random_design_asks_about_causes_only_with_shifts_in_its_range():
    # 5 comparisons at 5 standard errors: one false alarm in 300,000 seeds
    belief = Belief(linear_surrogate(SPARSE), History.empty(jnp.zeros((NUM_USERS, 5)), 1))
    for design, low, high in [(RandomDesign(), -2, 2), (RandomDesign(0.0, 1.0), 0, 1)]:
        query = design.ask(KEY, belief)
        counts = np.bincount(query.node, minlength=5)
        assert (counts[3:] == 0).all()
        assert (np.abs(counts[:3] - NUM_USERS / 3) < 5 * np.sqrt(NUM_USERS * 2 / 9)).all()
        assert query.shift.min() >= low
        assert query.shift.max() < high
        error = abs(query.shift.mean() - (low + high) / 2)
        assert error < 5 * (high - low) / np.sqrt(12 * NUM_USERS)


@pytest.mark.parametrize(("error_rate", "sign"), [(0.0, 1), (1.0, -1)])
def test_every_user_answers_from_their_own_scm(error_rate, sign):
    thetas = jax.random.uniform(KEY, (NUM_USERS, 3), float, -1, 1)
    scms = jax.vmap(linear_surrogate(GRAPH).scm)(thetas)
    answer = SimulatedUser(scms, error_rate).answer(KEY, repeated(0, 1.0), X)
    moments = [linear_moments(sign * t, *M1[1:], 0, 1.0) for t in np.asarray(thetas, float)]
    mean, variance = np.moveaxis(np.array(moments), 1, 0)
    z = ((answer - mean) / np.sqrt(variance / 100))[:, 1:]
    # 2,000 comparisons at 6 standard errors, 4 at 5: one false alarm in 150,000 seeds
    assert (np.abs(z) < 6).all()
    assert (np.abs(z.mean(0)) < 5 / np.sqrt(NUM_USERS)).all()


def test_a_users_history_is_the_same_alone_and_among_500():
    respondent = SimulatedUser(library.m2(), error_rate=0.3, noise=0.1)
    many = elicit(KEY, respondent, X, num_queries=T)
    alone = elicit(KEY, respondent, X[:1], num_queries=T)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:1]), alone, many)


def test_a_longer_elicitation_begins_like_a_shorter_one(history):
    short = elicit(KEY, M1_USER, X, num_queries=2)
    parts = ((h.questions, h.answer) for h in (short, history))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :2]), *parts)
    assert (
        len(np.unique(history.questions.shift)) > 0.99 * history.questions.shift.size
    )  # no query is asked twice


def test_same_key_gives_the_same_history_and_another_key_another(history):
    same, other = (elicit(k, M1_USER, X, num_queries=T) for k in (KEY, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, history, same)
    assert np.isin(other.questions.shift, history.questions.shift).mean() < 0.01


def test_elicitation_goes_on_from_a_padded_history_of_unequal_lengths(history):
    asked = np.arange(NUM_USERS) % 3 == 0
    query = Questions(jnp.where(asked, 1, -1), jnp.full(NUM_USERS, 9.0))
    begun = tell(History.empty(X, T), query, jnp.full((NUM_USERS, 3), 7.0))
    np.testing.assert_array_equal(begun.num_queries, asked)
    assert np.isnan(begun.answer[~asked]).all()  # not asked: nothing recorded
    assert not begun.questions.shift[~asked].any()
    longer = elicit(KEY, M1_USER, X, num_queries=T - 1, history=begun)
    np.testing.assert_array_equal(longer.num_queries, asked + T - 1)
    parts = ((h.questions, h.answer) for h in (begun, longer, history))
    for old, new, fresh in zip(*map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_array_equal(new[asked, :1], old[asked, :1])
        np.testing.assert_array_equal(new[asked, 1:], fresh[asked, : T - 1])
        np.testing.assert_array_equal(new[~asked, : T - 1], fresh[~asked, : T - 1])
        np.testing.assert_array_equal(new[~asked, T - 1 :], old[~asked, T - 1 :])


def test_tell_leaves_the_old_history_as_it_was():
    empty = History.empty(jnp.zeros((1, 2)), 1)
    told = tell(empty, Questions(jnp.array([0]), jnp.array([0.5])), jnp.array([[jnp.nan, 2.0]]))
    assert empty.num_queries == 0
    asked = told.questions
    assert (asked.node[0, 0], asked.shift[0, 0], told.answer[0, 0, 1]) == (0, 0.5, 2.0)


def test_a_full_history_takes_no_more(history):
    answer = jnp.zeros((NUM_USERS, 3))
    with pytest.raises(ValueError, match="room for one more question in history; got 4"):
        tell(history, repeated(0, 0.5), answer)
    with pytest.raises(ValueError, match="room for 1 more questions in history; got 0"):
        elicit(KEY, M1_USER, X, num_queries=1, history=history)
    nobody = repeated(-1, 0.5)
    jax.tree.map(np.testing.assert_array_equal, tell(history, nobody, answer), history)


WIDER = jnp.ones((NUM_USERS, 4))
BATCH = jax.vmap(linear_surrogate(GRAPH).scm)(jnp.zeros((3, 3)))


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: SimulatedUser(library.m1(), error_rate=1.1), r"error_rate in \[0, 1\]; got 1.1"),
        (lambda: SimulatedUser(library.m1(), error_rate=-0.1), "error_rate in"),
        (lambda: SimulatedUser(library.m1(), num_draws=0), "num_draws >= 1; got 0"),
        (lambda: SimulatedUser(library.m1(), noise=-1.0), "noise >= 0"),
        (lambda: SimulatedUser(library.m1(), report="some"), r"report to be one of \['all', 'one"),
        (
            lambda: SimulatedUser(library.m1(), wrong=linear_scm(SPARSE, jnp.ones(4))),
            "wrong to have the 3 nodes of scm; got 5",
        ),
        (lambda: RandomDesign(1.0, 1.0), "low < high"),
        (lambda: elicit(KEY, M1_USER, X, num_queries=0), "num_queries >= 1"),
        (lambda: elicit(KEY, M1_USER, X[0], num_queries=1), r"x of shape \(num_users, num_nodes\)"),
        (lambda: elicit(KEY, M1_USER, jnp.ones((2, 4)), num_queries=1), r"\(3,\) for x"),
        (lambda: elicit(KEY, M1_USER, X * jnp.nan, num_queries=1), "finite values for x"),
        (lambda: elicit(KEY, SimulatedUser(BATCH), X, num_queries=1), "each of the 500 users"),
        (lambda: M1_USER.answer(KEY, repeated(0, 1.0), X[:0]), "one user in x; got none"),
        (
            lambda: elicit(KEY, M1_USER, X, num_queries=1, history=History.empty(X[:3], 1)),
            "history of 500 users; got 3",
        ),
        (
            lambda: elicit(KEY, SimulatedUser(library.m1(), wrong=BATCH), X, num_queries=1),
            "each of the 500 users",
        ),
        (
            lambda: elicit(KEY, M1_USER, X, num_queries=1, history=History.empty(WIDER, 1)),
            "history",
        ),
        (
            lambda: tell(History.empty(X[:2], 1), repeated(0, 1.0, 2), jnp.zeros((2, 4))),
            r"answer of shape \(2, 3\); got \(2, 4\)",
        ),
        (
            lambda: tell(History.empty(X[:2], 1), repeated(0, 1.0, 2), jnp.full((2, 3), jnp.inf)),
            "answer to be finite",
        ),
        (
            lambda: tell(History.empty(X[:2], 1), repeated(3, 1.0, 2), jnp.zeros((2, 3))),
            "node",
        ),
        (
            lambda: tell(History.empty(X[:2], 1), repeated(0, jnp.nan, 2), jnp.zeros((2, 3))),
            "shift",
        ),
    ],
)
def test_misuse_names_the_argument(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()


def test_wrong_answers_come_from_the_inverted_scm_unless_another_is_given():
    x = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        SimulatedUser(library.m3()).wrong.scm.abduct(x), inverted(library.m3()).abduct(x)
    )
