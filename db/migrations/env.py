"""Alembic runs this file, which hands it the connection that `upgrade` was given."""

from alembic import context

from db.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
