"""Run by Alembic, on the connection that `schema.upgrade` hands over, in its transaction."""

from alembic import context

from pcr_jax.frontends.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
