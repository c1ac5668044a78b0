"""From a refused user to a recommendation, in one page."""

import jax

import pcr_jax as pcr

k_pop, k_ask, k_inf = jax.random.split(jax.random.key(0), 3)
truth = pcr.library.m1()
score, x, scale = pcr.refused_population(k_pop, truth, num_users=20)

surrogate = pcr.linear_surrogate(truth.graph, low=-2.0, high=2.0, scale=scale)
wrong = pcr.library.theta_star()
user = pcr.SimulatedUser(truth, error_rate=0.1, wrong=wrong, noise=0.05)
history = pcr.elicit(k_ask, user, x, num_queries=10, surrogate=surrogate)
posteriors = pcr.infer(k_inf, surrogate, history, pcr.mixture())
plan = pcr.find_recourse(score, posteriors.scms(draws=1000), x, scale=scale, level=0.95)
print(plan)
print(pcr.evaluate(plan, truth))
