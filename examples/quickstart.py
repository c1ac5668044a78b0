"""From a refused user to a recommendation, in one page."""

import jax

import pcr_jax as pcr

k_pop, k_ask, k_inf = jax.random.split(jax.random.key(0), 3)
truth = pcr.library.m1()
score, x, scale = pcr.refused_population(k_pop, truth, num_users=20)

wrong = pcr.library.theta_star()
user = pcr.SimulatedUser(truth, error_rate=0.1, wrong=wrong)
history = pcr.elicit(k_ask, user, x, num_queries=10)
posteriors = pcr.infer(
    k_inf,
    pcr.linear_surrogate(truth.graph),
    history,
    likelihood=pcr.tolerance(sigma=0.5, beta=0.1),
)
plan = pcr.find_recourse(score, posteriors.scms(), x, epsilon=0.1, scale=scale)
print(plan)
print(pcr.evaluate(plan, truth))
