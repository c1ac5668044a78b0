"""Participants and their events in a database: `store.Store`."""
