"""Samplers on several users at once: how many, and the program."""

from __future__ import annotations

from functools import partial

import jax

from pcr_jax.batching import over_devices, width
from pcr_jax.inference.samplers import Sampler, Samples
from pcr_jax.inference.target import Target

CHUNK = 32
"""Users sampled at once by each device, for each unit of `width`.

More keep the cores busy; but all wait for the slowest, and padding costs as much as users do.
"""


def on_all_devices(num_users: int) -> int:
    """How many users all devices compute at once, if that is so many for each unit of `width`."""
    return num_users * width() * jax.device_count()


def at_once(sampler: Sampler) -> int:
    """How many users a device samples at once, for each unit of `width`."""
    return getattr(sampler, "users_at_once", CHUNK)


@partial(jax.jit, static_argnums=0)
def run_chunk(sampler, likelihood, users, keys, starts) -> Samples:
    """The sampler on several ``users``: surrogates, histories and boxes; leaves users first."""

    def run(likelihood, *users):
        def one(user, key, starts):
            surrogate, history, box = user
            return sampler.run(key, Target(surrogate, likelihood, history, box), starts)

        if at_once(sampler) == 1 and width() == 1:
            return jax.lax.map(lambda user: one(*user), users)
        return jax.vmap(one)(*users)

    return over_devices(run, likelihood, users, keys, starts)
