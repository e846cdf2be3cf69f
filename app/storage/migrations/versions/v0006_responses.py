"""Responses that are kept, for OpenAI's clients."""

import sqlalchemy as sa
from advanced_alchemy.types import GUID, DateTimeUTC
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """From chats as the only thing that is kept of what was answered."""
    op.create_table(
        "responses",
        sa.Column("id", GUID(length=16), nullable=False),
        sa.Column("user_id", GUID(length=16), nullable=False),
        sa.Column("previous", GUID(length=16), nullable=True),
        sa.Column("thread", GUID(length=16), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("item_bytes", sa.BigInteger(), nullable=False),
        sa.Column("num_input", sa.Integer(), nullable=False),
        sa.Column("items", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_responses"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_responses_user_id_users", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_responses_user_id_num_bytes", "responses", ["user_id", "num_bytes"])
    op.create_index("ix_responses_thread_created_at", "responses", ["thread", "created_at"])
