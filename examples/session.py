"""A conversation with one person, broken off after every answer and taken up again."""

from pathlib import Path

import jax
import jax.numpy as jnp

import pcr_jax as pcr

k_session, k_person = jax.random.split(jax.random.key(0))
edges = [("income", "savings"), ("income", "credit"), ("savings", "credit")]
graph = pcr.Graph.from_edges(["income", "savings", "credit"], edges)
x, scale = jnp.array([[2100.0, 3500.0, 40.0]]), jnp.array([500.0, 2000.0, 10.0])


def score(x):
    """The bank's: favourable from 0 on."""
    return (x[0] - 2500) / 500 + (x[1] - 4000) / 2000 + (x[2] - 50) / 10


problem = pcr.pose(score, graph, x, scale=scale)
surrogate = pcr.linear_surrogate(graph, low=-2.0, high=2.0, scale=scale)
path = Path("session.json")
session = pcr.Session(k_session, problem, surrogate, path=path)

# In the place of a real person: what would follow for them, told with some noise.
truth = pcr.linear_scm(graph, jnp.array([2.0, 0.004, 0.002]))
person = pcr.SimulatedUser(truth, error_rate=0.0, noise=0.05 * scale)

for t in range(10):
    questions, (sentence,) = session.ask(), session.sentences()
    answer = person.answer(jax.random.fold_in(k_person, t), questions, x)
    session.tell(answer)
    print(sentence, dict(zip(graph.nodes, map("{:.4g}".format, answer[0]), strict=True)))
    # The process may end here: another one goes on from the file.
    session = pcr.Session.from_json(path.read_bytes(), problem, surrogate, path=path)

print(session.recommend().to_frame().sentence[0])
path.unlink()
