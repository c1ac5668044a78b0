"""Measurements that anybody can repeat; recorded ones are in ``results/``."""
