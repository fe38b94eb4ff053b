"""Alembic's entry: run the scripts on the connection that :mod:`msklabel.store.migrate` holds."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
