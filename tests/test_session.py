"""Sessions: whenever they are broken off, they go on as if nothing had happened."""

import doctest
import json
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcr_jax as pcr
from pcr_jax import session as module
from pcr_jax import session_json
from pcr_jax._pytree import pytree
from pcr_jax.recourse import Nominal

KEY = jax.random.key(7)
TRUTH = pcr.library.m1()
GRAPH = TRUTH.graph
X = jnp.array([[-1.0, -0.5, -0.3], [-2.0, 0.1, -0.2], [-0.4, -0.6, -1.5]])
SCALE = jnp.array([1.0, 1.5, 2.0])
SURROGATE = pcr.linear_surrogate(GRAPH, low=-2.0, high=2.0, scale=SCALE)
USER = pcr.SimulatedUser(TRUTH, error_rate=0.1, noise=0.05)
NOTHING = jnp.full((3, 3), jnp.nan)


def score(x):
    return x.sum() - 1.0


PROBLEM = pcr.pose(score, GRAPH, X, scale=SCALE)


@dataclass(frozen=True)
class Resampling:
    """Draws from the prior, by their likelihood: compiled in little time."""

    num_draws: int = 64
    name, needs_gradient, host_only, needs_exact_starts = "resampling", False, False, False
    num_starts, num_walkers = 0, 1

    def check(self, surrogate, likelihood):
        pass

    def run(self, key, target, starts):
        k_draw, k_pick = jax.random.split(key)
        z = target.from_unit(jax.random.uniform(k_draw, (8 * self.num_draws, target.dim)))
        weights = jax.vmap(target.log_likelihood)(z)
        z = z[jax.random.categorical(k_pick, weights, shape=(self.num_draws,))]
        draws = z[None, :, None]
        return pcr.Samples(draws, jax.vmap(target.log_density)(z)[None, :, None], draws[:, :0], 1)


@dataclass(frozen=True)
class Curious:
    """Asks by what was inferred; and those with a low first feature only twice."""

    low: float = -1.5
    needs_posterior = True

    def ask(self, key, belief):
        history, (mean, _, _) = belief.history, belief.posteriors.draws.mean((1, 2)).T
        assert belief.problem.names == GRAPH.nodes
        node = np.asarray(history.num_queries) % 2
        stops = (np.asarray(history.x)[:, 0] < self.low) & (np.asarray(history.num_queries) == 2)
        by = mean + 0.1 * np.asarray(pcr.RandomDesign().ask(key, belief).shift)
        return pcr.Questions(np.where(stops, -1, node), by, np.ones(len(node), bool))


SETTINGS = {"design": Curious(), "sampler": Resampling()}


def begin(problem=PROBLEM, **other):
    counts = {"max_questions": 3, "draws": 20, "digits": 5}
    return pcr.Session(KEY, problem, SURROGATE, **SETTINGS | counts | other)


def simple(**other):
    """A session whose questions rest on no posterior."""
    return begin(**{"design": None, "sampler": None, "digits": 2} | other)


def test_the_example_of_the_docstring_runs():
    outcome = doctest.testmod(module)
    assert outcome.attempted > 5
    assert not outcome.failed


def again(session, **other):
    """It, written and read."""
    return pcr.Session.from_json(session.to_json(), PROBLEM, SURROGATE, **SETTINGS | other)


def answer(session, x=X):
    """What the people say to the present question."""
    key = jax.random.fold_in(jax.random.key(1), int(session.history.num_queries.max()))
    return USER.answer(key, session.ask(), x)


def outcome(session):
    """All that follows."""
    plan = session.recommend("paper")
    return session.belief.posteriors.draws, session.ask(), session.sentences(), plan.action.value


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_it_goes_on_after_every_answer_as_if_never_broken_off():
    session, resumed = begin(), begin()
    while not session.done.all():
        session.tell(answer(session))
        resumed = again(resumed)
        resumed.ask()
        resumed = again(resumed)  # with a question that is not answered yet
        resumed.tell(answer(resumed))
        assert resumed.to_json() == session.to_json()
        same(outcome(again(resumed)), outcome(session))
    assert session.history.num_queries.tolist() == [3, 2, 3]
    assert np.isnan(session.history.answer[1, 2]).all()


def test_a_person_is_asked_and_recommended_the_same_in_other_company():
    first, other = (X[jnp.array(rows)] for rows in ([2, 0, 1], [2, 2, 0]))
    one, two = (begin(pcr.pose(score, GRAPH, x, scale=SCALE)) for x in (first, other))
    two.design = one.design = Curious(low=-0.9)  # two of the others stop early
    while not one.done.all():
        for session, x in ((one, first), (two, other)):
            if not session.done.all():
                session.tell(answer(session, x))
        same(one.ask().shift[0], two.ask().shift[0])
        same(one.sentences()[0], two.sentences()[0])
    same(*(s.belief.posteriors.draws[0] for s in (one, two)))
    same(*(s.recommend("paper").action.value[0] for s in (one, two)))


def test_a_person_alone_is_asked_the_same():
    alone = pcr.Session(KEY, pcr.pose(score, GRAPH, X[:1], scale=SCALE), SURROGATE)
    assert alone.sentences() == simple().sentences()[:1]


def test_what_is_taken_back_leaves_no_trace():
    session, other = begin(), begin()
    session.ask()
    session.tell(answer(session))
    said = answer(session)
    text, asked = session.to_json(), session.ask()
    session.tell(-said, jnp.ones((3, 3)))
    session.ask()
    session.undo()
    assert session.to_json() == text
    same(session.ask(), asked)
    session.tell(said)
    other.ask()
    for _ in range(2):
        other.tell(answer(other))
        other.ask()
    same(outcome(session), outcome(other))
    session.undo()
    session.undo()
    with pytest.raises(ValueError, match="Expected an answer to take back; got none yet"):
        session.undo()


def test_the_file_is_strict_json_with_everything_that_was_said():
    session = simple()
    session.ask()
    said = np.array([[np.nan, np.nan, 0.25], [np.nan] * 3, [np.nan, 1.5, np.nan]])
    session.tell(said, half_width=np.full((3, 3), 0.5))
    session.ask()
    session.tell(NOTHING)

    def refuse(literal):
        raise AssertionError(literal)

    content = json.loads(session.to_json(), parse_constant=refuse)
    assert content["key"] == {"impl": "threefry2x32", "data": [0, 7]}
    assert set(content["versions"]) == {"pcr-jax", "jax", "numpyro"}
    assert content["settings"]["problem"]["scale"] == [1.0, 1.5, 2.0]
    assert content["settings"]["design"]["class"] == "RandomDesign"
    first, second = content["turns"]
    assert [person["answer"] for person in first["people"]] == [
        [None, None, 0.25],
        None,
        [None, 1.5, None],
    ]
    assert first["people"][0]["half_width"] == [0.5] * 3
    assert [person["answer"] for person in second["people"]] == [None] * 3
    assert session.history.num_queries.tolist() == [2] * 3  # "I don't know" counts as asked
    resumed = again(session, design=None, sampler=None)
    same(resumed.history, session.history)
    same(resumed.ask(), session.ask())


@pytest.mark.parametrize(("scale", "unit"), [(1.0, 0.1), (20.0, 1.0), (3000.0, 100.0)])
def test_what_people_read_is_what_is_asked(scale, unit):
    x = scale * np.array([[1.234567, 0.0, 0.0]])
    problem = pcr.pose(score, GRAPH, x, scale=[scale] * 3)
    session = pcr.Session(KEY, problem, pcr.linear_surrogate(GRAPH, scale=[scale] * 3))
    (text,), (shift,), (node,) = session.sentences(), session.ask().shift, session.ask().node
    name, effects = GRAPH.nodes[node], ("X2 and X3", "X3")[node]
    by = round(float(shift), 1)
    assert by == pytest.approx(round(by / unit) * unit)
    begin = round(float(x[0, node]) / unit) * unit
    form = ",.1f" if scale == 1 else ",.0f"
    verb = "rose" if by > 0 else "fell"
    assert text == (
        f"Suppose your {name} {verb} by {abs(by):{form}}, from {begin:{form}} to "
        f"{begin + by:{form}}. What would {effects} become for you?"
    )


def test_a_question_for_one_number_asks_for_it_alone_and_is_written_so():
    session = simple(design=pcr.RandomDesign(report="one"))
    for _ in range(3):
        questions = session.ask()
        for text, node, one in zip(
            session.sentences(), questions.node, questions.outcome, strict=True
        ):
            assert f"What would {GRAPH.nodes[one]} become" in text
            assert GRAPH.descendants[node, one]
        session.tell(answer(session))
    told = ~np.isnan(session.history.answer)
    np.testing.assert_array_equal(told, session.history.questions.outcomes(GRAPH))
    resumed = again(session, design=pcr.RandomDesign(report="one"), sampler=None)
    same(resumed.history, session.history)
    assert resumed.to_json() == session.to_json()
    content = json.loads(session.to_json())
    content.pop("sha256")
    content["turns"][0]["people"][0]["outcome"] = GRAPH.nodes[0]  # of which nothing is a cause
    with pytest.raises(
        ValueError, match=r"for one of these or all .*; got nodes .* outcomes \[0, "
    ):
        pcr.Session.from_json(
            session_json.sealed(content), PROBLEM, SURROGATE, design=pcr.RandomDesign(report="one")
        )


def test_people_like_you_are_asked_about_on_average():
    session = simple(design=pcr.RandomDesign(-2.0, -1.0, individual=False))
    text = session.sentences()[0]
    assert text.startswith(("Suppose X1 fell by", "Suppose X2 fell by"))
    assert text.endswith("for people like you. What would X3 become for them, on average?") or (
        "What would X2 and X3 become for them" in text
    )


def mutated(text, rng):
    """A text with a few bytes changed, a part left out or moved, or a value changed."""
    kind = rng.randrange(4)
    if kind == 0:
        data = bytearray(text.encode())
        for _ in range(rng.choice([1, 1, 1, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if kind == 1:
        start = rng.randrange(len(text))
        return text[:start] + text[start + rng.randrange(1, 50) :]
    if kind == 2:
        digits = [i for i, c in enumerate(text) if c.isdigit()]
        at = rng.choice(digits)
        return text[:at] + rng.choice("0123456789e.-") + text[at + 1 :]
    return json.dumps(changed(json.loads(text), rng))


def changed(content, rng):
    """A content with one value or name changed, or left out."""
    places = []

    def look(value):
        if isinstance(value, dict | list) and value:
            places.extend(
                (value, k) for k in (value if isinstance(value, dict) else range(len(value)))
            )
            for part in value.values() if isinstance(value, dict) else value:
                look(part)

    look(content)
    holder, at = rng.choice(places)
    new = rng.choice(
        [None, True, False, -1, 0, 3, 1e300, 10**400, 0.1, "X9", "", [], {}, [1, 2, 3], "drop"]
    )
    if new == "drop":
        del holder[at]
    else:
        holder[at] = new
    return content


def outcomes_of_mutations(number):
    session = simple()
    session.ask()
    session.tell(answer(session), jnp.full((3, 3), 0.1))
    session.ask()
    text, rng = session.to_json(), random.Random(0)
    same_again = 0
    for k in range(number):
        wrong = mutated(text, rng)
        if k % 2:  # with the right checksum
            content = changed(json.loads(text), rng)
            content.pop("sha256", None)
            wrong = session_json.sealed(content)
        try:
            read = pcr.Session.from_json(wrong, PROBLEM, SURROGATE)
        except ValueError as error:
            assert str(error).startswith("Expected "), error  # noqa: PT017
        else:
            if k % 2 == 0:
                assert read.to_json() == text
            same_again += read.to_json() == text
    return same_again


@pytest.mark.filterwarnings("ignore:The session began with:UserWarning")
def test_a_changed_file_is_refused_or_the_same_session():
    assert outcomes_of_mutations(500) < 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The session began with:UserWarning")
def test_many_changed_files_are_refused_or_the_same_session():
    assert outcomes_of_mutations(4000) < 800


def test_what_is_passed_again_has_to_be_the_same():
    text = simple().to_json()

    def read(problem=PROBLEM, surrogate=SURROGATE, **other):
        return pcr.Session.from_json(text, problem, surrogate, **other)

    read()
    others = {
        r"design\.high": {"design": pcr.RandomDesign(high=1.0)},
        r"design\.class": {"design": Curious()},
        r"likelihood\.noise": {"likelihood": pcr.mixture(noise=0.2)},
        "sampler": {"sampler": "ess"},
        r"surrogate\.prior\.low": {"surrogate": pcr.linear_surrogate(GRAPH, scale=SCALE)},
        r"problem\.x\[2\]\[0\]": {
            "problem": pcr.pose(score, GRAPH, X.at[2, 0].set(0.0), scale=SCALE)
        },
        r"problem\.scale": {"problem": pcr.pose(score, GRAPH, X, scale=SCALE * 2)},
        r"problem\.cost": {"problem": pcr.pose(score, GRAPH, X, scale=SCALE, cost="l2")},
        "problem with the score": {
            "problem": pcr.pose(lambda x: x.sum() - 1.1, GRAPH, X, scale=SCALE)
        },
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"Expected {name}.* session in text began with.*got"):
            read(**other)


def test_a_class_of_ones_own_is_told_by_its_name_and_fields():
    @dataclass(frozen=True)
    class Mine(pcr.RandomDesign):
        notes: tuple = (jnp.nan, jnp.inf, {"a": [score]}, jax.random.key(1))

    class Plain:
        def __init__(self):
            self.depth = np.float32(0.5)

    told = session_json.described([Mine(), Plain(), np.float64(0.5), pcr.PlanStatus.budget])
    assert [type(value) for value in told[2:]] == [float, int]
    assert told[0]["notes"] == [None, "inf", [["a", [{"name": "score"}]]], [0, 1]]
    assert told[1]["depth"] == 0.5
    assert session_json.described(Mine()) == told[0]
    json.dumps(told, allow_nan=False)
    text = simple(design=Mine()).to_json()
    with pytest.raises(ValueError, match=r"design\.notes\[1\]"):
        again(simple(design=Mine()), design=Mine(notes=(jnp.nan, 1.0, {}, KEY)), sampler=None)
    assert again(simple(design=Mine()), design=Mine(), sampler=None).to_json() == text


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("schema", 2, "of schema 1, which this version of pcr_jax reads; got 2"),
        ("format", "other", "with format 'pcr_jax session'"),
        ("precision", "float16", "Expected JAX in the precision of .*'float16'; got"),
        ("key", {"impl": "none", "data": [0, 1]}, "with a random key that JAX knows"),
        ("draws", "many", "Expected an integer draws"),
    ],
)
def test_a_file_of_another_kind_is_refused(part, value, message):
    content = json.loads(simple().to_json())
    del content["sha256"]
    with pytest.raises(ValueError, match=message):
        pcr.Session.from_json(session_json.sealed(content | {part: value}), PROBLEM, SURROGATE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "got a name twice"),
        ('{"a": NaN}', "got NaN"),
        ('{"a": ' + "9" * 5000 + "}", "strict JSON; got"),
        ("[" * 100_000, "strict JSON; got"),
        (b"\xff{}", "strict JSON; got"),
        ("[]", "with format 'pcr_jax session'; got"),
    ],
)
def test_what_is_not_strict_json_is_refused(text, message):
    with pytest.raises(ValueError, match=f"Expected text of a session, .*{message}"):
        pcr.Session.from_json(text, PROBLEM, SURROGATE)
    with pytest.raises(TypeError, match="text to be a str or bytes; got 3"):
        pcr.Session.from_json(3, PROBLEM, SURROGATE)


def test_other_versions_are_warned_of():
    content = json.loads(simple().to_json())
    del content["sha256"]
    content["versions"]["jax"] = "0.0.1"
    with pytest.warns(UserWarning, match=r"began with .*0\.0\.1"):
        pcr.Session.from_json(session_json.sealed(content), PROBLEM, SURROGATE)


def test_misuse_is_refused():
    session = simple()
    with pytest.raises(ValueError, match=r"Expected ask\(\) before tell\(\); got"):
        session.tell(NOTHING)
    session.ask()
    for wrong, error in (
        ({"answer": NOTHING[:2]}, ValueError),
        ({"answer": NOTHING.at[0, 0].set(jnp.inf)}, ValueError),
        ({"answer": "much"}, TypeError),
        ({"answer": NOTHING, "half_width": -jnp.ones((3, 3))}, ValueError),
    ):
        with pytest.raises(error, match=f"Expected {list(wrong)[-1]}"):
            session.tell(**wrong)
    assert not session.history.num_queries.any()
    for _ in range(3):
        assert not session.done.any()
        session.tell(NOTHING)
    assert session.done.all()
    assert session.ended == ("all questions were asked",) * 3
    assert session.sentences() == (None,) * 3
    with pytest.raises(ValueError, match="Expected answer while somebody is asked; got"):
        session.tell(NOTHING)
    session.undo()
    assert not session.done.any()
    assert session.ended == (None,) * 3


class Content(pcr.RandomDesign):
    """With the first person, before anything is asked."""

    def ask(self, key, belief):
        questions = super().ask(key, belief)
        return replace(questions, node=questions.node.at[0].set(-1))


def test_it_says_why_nothing_more_is_asked():
    bounds = np.full((3, 3), 4.0) * np.array([1.0, 0.0, 1.0])[:, None]
    problem = replace(PROBLEM, bounds=(jnp.asarray(-bounds), jnp.asarray(bounds)))
    session = simple(problem=problem, design=Content())
    worth, possible, asked = session.ended
    assert worth == "no question is worth asking"
    assert possible == "there is nothing that can be asked"
    assert asked is None


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"problem": X}, TypeError, r"problem to be a Problem; got .* See pcr_jax\.pose"),
        ({"design": Curious}, TypeError, "design to be a Design, such as"),
        ({"sampler": "best"}, ValueError, "sampler to be one of"),
        ({"sampler": "nuts", "likelihood": pcr.tolerance(0.5, 0.1)}, ValueError, "gradient"),
        ({"max_questions": 0}, ValueError, "max_questions >= 1; got 0"),
        ({"draws": 2.5}, ValueError, "draws"),
        ({"digits": 0}, ValueError, "digits"),
        ({"path": 3}, TypeError, "path"),
    ],
)
def test_wrong_settings_are_refused_at_once(wrong, error, message):
    with pytest.raises(error, match=message):
        begin(**wrong)


def test_nodes_and_users_have_to_agree():
    other = pcr.linear_surrogate(pcr.Graph.from_edges("ab", ["ab"]))
    with pytest.raises(ValueError, match=r"surrogate of the features .*; got one of \['a', 'b'\]"):
        pcr.Session(KEY, PROBLEM, other)
    prior, mean = pcr.Box(-np.ones((2, 3)), np.ones((2, 3))), np.zeros((2, 3))
    many = pcr.linear_surrogate(GRAPH, prior=prior, noise_mean=mean)
    with pytest.raises(ValueError, match="one for each of 3 users"):
        pcr.Session(KEY, PROBLEM, many)


def test_questions_that_cannot_be_asked_are_refused():
    @dataclass(frozen=True)
    class Strange:
        questions: object
        needs_posterior = False

        def ask(self, key, belief):
            return self.questions

    for questions, error, message in (
        (None, TypeError, "questions of design to be a Questions"),
        (pcr.Questions(np.array([0, 1, 2]), np.ones(3)), ValueError, "nodes with descendants"),
        (pcr.Questions(np.array([0, 1]), np.ones(2)), ValueError, "node of design of shape"),
        (pcr.Questions(np.array([0, 1, 0]), np.full(3, np.nan)), ValueError, "shift of design"),
        (
            pcr.Questions(np.array([0, 1, 0]), np.ones(3), outcome=np.array([-1, 0, -1])),
            ValueError,
            "descendants of the nodes, or -1 for all; got outcomes",
        ),
    ):
        with pytest.raises(error, match=message):
            simple(design=Strange(questions)).ask()


def test_a_raw_key_asks_the_same():
    raw = pcr.Session(jax.random.key_data(KEY), PROBLEM, SURROGATE, max_questions=3, draws=20)
    assert raw.to_json() == simple().to_json()


def test_a_problem_with_a_level_is_judged_by_draws(monkeypatch):
    @pytree()
    class Sure(Nominal):
        level: jax.Array

    shapes = []
    monkeypatch.setattr(
        module, "recommend", lambda _, worlds, **__: shapes.append(worlds.batch_shape)
    )
    for requirement in (Nominal(), Sure(jnp.asarray(0.9))):
        begin(replace(PROBLEM, requirement=requirement)).recommend()
    assert shapes == [(3,), (3, 20)]


def test_a_file_is_there_before_each_call_returns(tmp_path, monkeypatch):
    path = tmp_path / "session.json"
    session = simple(path=path)
    assert not path.exists()

    def is_saved():
        return path.read_text() == session.to_json()

    session.ask()
    assert is_saved()
    session.tell(answer(session))
    assert is_saved()
    resumed = pcr.Session.from_json(path.read_bytes(), PROBLEM, SURROGATE, path=path)
    resumed.ask()
    resumed.tell(answer(resumed))
    resumed.undo()
    session.ask()
    assert is_saved()
    with pytest.raises(FileExistsError, match=r"Expected path of a new file; .*from_json"):
        simple(path=path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write", full)
    with pytest.raises(OSError, match="No space"):
        resumed.tell(answer(resumed))
    assert resumed.to_json() == path.read_text()  # not told
    monkeypatch.undo()
    resumed.tell(answer(resumed))
    resumed.save(tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == path.read_bytes()


TALK = """
import sys, test_session as t
session = t.simple(path=sys.argv[1])
while not session.done.all():
    session.tell(t.answer(session))
    print("told", flush=True)
    sys.stdin.readline()
"""


def killed_after(number, path):
    """The file of a process that was killed with its answer told; what came next after each."""
    words = [sys.executable, "-c", TALK, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=Path(__file__).parent, **pipes) as process:
        for k in range(number):
            if k:
                process.stdin.write("\n")
                process.stdin.flush()
            assert process.stdout.readline() == "told\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    session = simple()
    for _ in range(number):
        session.ask()
        session.tell(answer(session))
    resumed = pcr.Session.from_json(path.read_bytes(), PROBLEM, SURROGATE, path=path)
    same(resumed.history, session.history)
    same(resumed.ask(), session.ask())
    assert resumed.to_json() == session.to_json()


def test_a_killed_process_loses_no_answer(tmp_path):
    killed_after(2, tmp_path / "session.json")


@pytest.mark.slow
def test_a_process_killed_after_any_answer_loses_none(tmp_path):
    for number in (1, 2, 3):
        killed_after(number, tmp_path / f"{number}.json")
