"""A client's own record of a chat: what its page shows beside the messages."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From chats of messages alone."""
    op.add_column("chats", sa.Column("document", sa.String(), nullable=True))
