"""One participant as a function of events; many who are computed together."""

import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from pcr_jax.frontends.conversation import Conversation, Mistakes, digest
from pcr_jax.frontends.engine import Engine, together
from pcr_jax.frontends.events import Event
from pcr_jax.frontends.terms import Terms
from tests.frontends.small_task import small

TERMS = Terms(max_questions=2, attention=(1,), retest=(0,), plans=2)


@pytest.fixture(scope="module")
def task():
    return small()


@pytest.fixture(scope="module")
def surrogate(task):
    return task.fit()


def happens(talk, kind, payload):
    talk.take(Event(len(talk.events), 0.0, kind, payload))


def begun(task, surrogate, key=0, terms=TERMS, **wishes):
    talk = Conversation(task, surrogate, refused(task), terms, jax.random.key(key))
    happens(talk, "consented", {})
    happens(talk, "profile", talk.profiled(**wishes))
    return talk


def refused(task):
    rows = task.data.iloc[:50]
    return rows[~task.check(rows).favourable.to_numpy(bool)].iloc[[0]]


def answer(talk, move=0.0):
    """Go on by a question and its answer: what is so now, moved by some scales."""
    happens(talk, *talk.following())
    question = talk.question()
    if question is None:
        return None
    scale = dict(zip(talk.task.features, talk.task.scale, strict=True))
    typed = {
        f"{effect.column}": f"{abs(effect.now + move * scale[effect.column]):.0f}"
        for effect in question.effects
    }
    happens(talk, "answered", {**talk.read(typed), "seconds": 1.0})
    return question


@pytest.fixture(scope="module")
def ended(task, surrogate):
    """A whole conversation."""
    talk = begun(task, surrogate)
    kinds = []
    while talk.stage == "question":
        question = answer(talk, 0.2)
        kinds += [] if question is None else [question.kind]
    talk.kinds = kinds
    return talk


def test_attention_and_retest_have_their_places(ended):
    assert ended.kinds == ["effect", "attention", "effect", "retest"]
    assert ended.stage == "plan"
    assert int(ended.session.history.num_queries[0]) == 2  # nothing is inferred from the others


def test_all_follows_from_the_events_to_the_last_bit(task, surrogate, ended):
    again = Conversation(task, surrogate, refused(task), TERMS, ended.key, ended.events)
    assert digest(again.posteriors) == digest(ended.posteriors)
    assert again.plans().payload == ended.plans().payload


def test_one_number_is_asked_for_where_an_arm_says_so(task, surrogate):
    terms = Terms(design="random", report="one", max_questions=3, retest=(0,))
    talk = begun(task, surrogate, terms=terms)
    while talk.stage == "question":
        question = answer(talk, 0.2)
        assert question is None or len(question.effects) == 1
    told = talk.session.history
    np.testing.assert_array_equal(~np.isnan(told.answer), told.questions.outcomes(task.graph))
    assert (np.asarray(told.questions.outcome) >= 0).all()
    again = Conversation(task, surrogate, refused(task), terms, talk.key, talk.events)
    jax.tree.map(np.testing.assert_array_equal, again.session.history, told)


def test_what_was_taught_is_said(ended):
    asked = [event.payload for event in ended.events if event.kind == "asked"]
    assert asked[0]["taught"] is None
    assert asked[1]["taught"].startswith("We now expect your ")


def test_people_on_average_are_asked_about_with_what_they_have_now(task, surrogate):
    terms = Terms(design="random", max_questions=2, individual=False)
    talk = Conversation(task, surrogate, refused(task), terms, jax.random.key(0))
    happens(talk, "consented", {})
    happens(talk, "profile", talk.profiled())
    happens(talk, *talk.following())
    question = talk.question()
    assert not question.individual
    assert question.text.startswith("Suppose people like you ")
    assert ", from " not in question.text  # where one person is
    for effect in question.effects:
        average = task.data[effect.column].mean()
        assert abs(effect.now - average) <= 0.01 * average
        assert f"{effect.label} {effect.now_text}" in question.text.partition("Now, on average:")[2]
    same = talk.read({effect.column: "no effect" for effect in question.effects})
    assert same["values"] == {effect.column: effect.now for effect in question.effects}
    happens(talk, "answered", same)
    answered = np.asarray(talk.session.history.answer)[0, 0]
    assert np.nanmax(np.abs(answered - surrogate.centre) / surrogate.scale) < 0.02


def test_back_leaves_no_trace(task, surrogate):
    straight, other = begun(task, surrogate), begun(task, surrogate)
    first = answer(straight, 0.2)
    answer(other, -0.5)
    happens(other, *other.following())  # the next question is open
    assert other.can_go_back
    happens(other, "back", other.taken_back())
    assert other.question().text == first.text
    typed = straight.events[-1].payload["typed"]
    happens(other, "answered", {**other.read(typed), "seconds": 1.0})
    assert digest(other.posteriors) == digest(straight.posteriors)
    with pytest.raises(ValueError, match="answer to take back"):
        begun(task, surrogate).taken_back()


def test_together_is_as_alone(task, surrogate):
    talks = [begun(task, surrogate, key) for key in range(3)]
    for move, talk in enumerate(talks):
        answer(talk, 0.3 * move)
    found = together([talk.job() for talk in talks])
    assert [digest(one) for one in found] == [digest(talk.posteriors) for talk in talks]
    assert len({digest(one) for one in found}) == 3


def test_what_is_locked_is_neither_asked_about_nor_advised(task, surrogate):
    columns = [control.column for control in begun(task, surrogate).controls()]
    talk = begun(task, surrogate, locked=columns[:1], weights={columns[-1]: 4.0})
    while talk.stage == "question":
        question = answer(talk, 0.2)
        assert question is None or question.kind == "attention" or question.column != columns[0]
    with pytest.raises(ValueError, match="can be acted on"):
        talk.what_if({columns[0]: 0.0})
    plain = begun(task, surrogate)
    control = next(c for c in plain.controls() if c.column == columns[-1])
    value = {columns[-1]: control.high}
    assert talk.what_if(value).cost == pytest.approx(4 * plain.what_if(value).cost)


def test_what_cannot_be_read_changes_nothing(task, surrogate):
    talk = begun(task, surrogate)
    happens(talk, *talk.following())
    before = len(talk.events)
    with pytest.raises(Mistakes) as mistakes:
        talk.read({f"{effect.column}": "1e308" for effect in talk.question().effects})
    assert set(mistakes.value.messages) == {f"{e.column}" for e in talk.question().effects}
    assert len(talk.events) == before
    with pytest.raises(ValueError, match=f"event {before}"):
        talk.take(Event(before + 1, 0.0, "answered", {}))


def test_what_was_understood_is_of_the_person(ended):
    found = ended.understood()
    assert found.effects
    for effect in found.effects:
        assert effect.low <= effect.middle <= effect.high
        assert effect.people_low <= effect.people_middle <= effect.people_high
        assert effect.taught <= 1
    assert max(effect.taught for effect in found.effects) > 0


def test_an_engine_gathers_what_waits(task):
    people = {
        n: SimpleNamespace(
            arm="a",
            applicant=refused(task).iloc[0].to_dict(),
            key=np.asarray(jax.random.key_data(jax.random.key(n))).tolist(),
        )
        for n in range(4)
    }
    events = {n: [Event(0, 0.0, "consented", {})] for n in people}
    store = SimpleNamespace(
        participant=people.get, events=lambda n, after=-1: events[n][after + 1 :]
    )
    engine = Engine(store, task, {"a": TERMS})
    said = []
    engine.warm_up(said.append)
    assert engine.ready.is_set()
    assert said[-1] == "plans, of ranges"
    found = {}

    def go_on(n):
        events[n].append(Event(1, 0.0, "profile", engine.run(n, lambda talk: talk.profiled())))
        found[n] = engine.run(n, lambda talk: talk.following())[1]["text"]

    threads = [threading.Thread(target=go_on, args=(n,)) for n in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    surrogate = engine.surrogate(TERMS)
    for n in people:
        alone = begun(task, surrogate, n)
        assert alone.following()[1]["text"] == found[n]
    with pytest.raises(KeyError, match="of number 9"):
        engine.run(9, lambda talk: talk.stage)
    engine.forget(0)
    assert engine.run(0, lambda talk: talk.stage) == "question"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"design": "best"}, "design"),
        ({"level": 1.0}, "level"),
        ({"max_questions": 0}, "max_questions"),
        ({"attention": [6]}, "numbers of questions, from 0 to 5"),
        ({"retest": [True]}, "retest"),
        ({"lvel": 0.9}, "lvel"),
    ],
)
def test_terms_that_cannot_be(settings, said):
    with pytest.raises((TypeError, ValueError), match=said):
        Terms.of(settings)
