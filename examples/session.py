"""A conversation with twenty people, broken off after every answer and taken up again."""

from pathlib import Path

import jax

import pcr_jax as pcr

k_pop, k_session, k_person = jax.random.split(jax.random.key(0), 3)
truth = pcr.library.m1()
score, x, scale = pcr.refused_population(k_pop, truth, num_users=20)  # one person: x of one row
people = pcr.SimulatedUser(truth, error_rate=0.1, noise=0.05)  # in the place of real ones

problem = pcr.pose(score, truth.graph, x, scale=scale, epsilon=0.1)
surrogate = pcr.linear_surrogate(truth.graph, low=-2.0, high=2.0, scale=scale)
path = Path("session.json")
session = pcr.Session(k_session, problem, surrogate, path=path)

for t in range(10):
    questions, sentences = session.ask(), session.sentences()
    answer = people.answer(jax.random.fold_in(k_person, t), questions, x)
    session.tell(answer)
    print(sentences[0], dict(zip(truth.graph.nodes, map("{:.2f}".format, answer[0]), strict=True)))
    # The process may end here: another one goes on from the file.
    session = pcr.Session.from_json(path.read_bytes(), problem, surrogate, path=path)

print(session.recommend().to_frame().sentence[0])
path.unlink()
