"""Every user's posterior in ArviZ's own tables and plots, in either of its families."""

import warnings
from importlib.metadata import version

import arviz as az
import jax
import matplotlib as mpl
import matplotlib.pyplot as plt

import pcr_jax as pcr

mpl.use("Agg")
plt.rcParams["figure.max_open_warning"] = 0
LEGACY = int(version("arviz").split(".")[0]) < 1
if LEGACY:  # it calls matplotlib in a way that 3.11 deprecates
    warnings.filterwarnings("ignore", category=mpl.MatplotlibDeprecationWarning)

k_ask, k_inf = jax.random.split(jax.random.key(0))
truth = pcr.library.m1()
user = pcr.SimulatedUser(truth, error_rate=0.1, wrong=pcr.library.theta_star())
design = pcr.RandomDesign(0.0, 1.0, individual=False)  # the paper's questions
history = pcr.elicit(k_ask, user, jax.numpy.zeros((8, 3)), num_queries=10, design=design)
surrogate = pcr.linear_surrogate(truth.graph)
posteriors = pcr.infer(
    k_inf, surrogate, history, likelihood=pcr.tolerance(sigma=0.5, beta=0.1), sampler="ess"
)
print(pcr.diagnose(posteriors))

idata = posteriors.to_arviz()
one = idata.sel(user=0)  # one user's posterior
plots = {
    "trace": lambda: az.plot_trace(one, var_names=["theta"]),
    "rank": lambda: az.plot_rank(one, var_names=["theta"]),
    "forest": lambda: az.plot_forest(idata, var_names=["theta"], combined=True),
    "pair": lambda: az.plot_pair(one, var_names=["theta"]),
}
for name, plot in plots.items():
    plot()
    plt.savefig(f"{name}.png")
    plt.close("all")

# What the posterior expects this user to say of X3, which every question is about, and the answers.
if LEGACY:
    az.plot_ppc(one.sel(node="X3"), var_names=["answer"])
else:
    az.plot_ppc_dist(one.sel(node="X3"), var_names=["answer"], num_samples=20)
plt.savefig("posterior_predictive.png")
plt.close("all")
print(f"wrote {', '.join(plots)}, posterior_predictive (.png)")
