"""How Alembic reaches the database: over the connection that bench.service.database hands it."""

from alembic import context

from bench.service.database import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
