"""SCMs from data."""

from pcr_jax.fitting.fit import FittedSCM, fit_scm

__all__ = ["FittedSCM", "fit_scm"]
