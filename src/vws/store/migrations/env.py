"""Alembic's entry: run the revisions over the connection that vws.store.upgrade hands in.

The transaction and the lock are the caller's, so that a failed upgrade leaves nothing behind.
"""

from alembic import context

from vws.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
