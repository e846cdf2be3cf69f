"""Alembic's entry: runs the steps on the connection that `Database.migrate` hands over."""

from alembic import context

from app.storage.models import User

# render_as_batch: SQLite changes a column by copying the table
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=User.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
